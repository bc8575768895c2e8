"""Maps of a network in training: their means over the image, and what they show."""

from collections.abc import Mapping

import torch
from torch.nn import functional as F

from slams_ray.data.transforms import normalise, valid_mask

EPSILON = 1e-5


def crops_of(batch: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns (B, 3, H, W) normalised crops, and (B, 1, H, W) 1 on image and 0 on padding."""
    images = normalise(batch["image"], batch["box"])
    return images, valid_mask(batch["box"], images.shape[-1])


def mean_over_image(maps: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """(B, C) mean of (B, C, h, w) maps over the pixels that are not padding."""
    return (maps * valid).sum(dim=(2, 3)) / valid.sum(dim=(2, 3)).clamp(min=EPSILON)


def mean_over_classes(values: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """(B,) mean of (B, C) values over the classes with label 1; 0 for a row without one.

    A row is an image with its present classes, or a pair of image and class with chosen classes.

    Args:
        labels: (B, C) multi-hot or bool.
    """
    return (values * labels).sum(dim=1) / labels.sum(dim=1).clamp(min=1)


def resized(maps: torch.Tensor, size: tuple[int, ...] | torch.Size) -> torch.Tensor:
    """(B, C, *size) maps, enlarged bilinearly or averaged over the pixels of a smaller grid."""
    if maps.shape[-2:] == torch.Size(size):
        return maps
    if size[0] <= maps.shape[-2] and size[1] <= maps.shape[-1]:
        return F.interpolate(maps, size=tuple(size), mode="area")
    return F.interpolate(maps, size=tuple(size), mode="bilinear", align_corners=False)


def collapse_metrics(
    activation: torch.Tensor, labels: torch.Tensor, valid: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Metrics that show a collapse of the maps of present classes (docs/method.md, Collapse).

    An activation_mean near 0 or 1 means empty or full maps. An activation_contrast (standard
    deviation within a map) near 0 means uniform maps.

    Args:
        activation: (B, C, h, w) in [0, 1], without a gradient.
        labels: (B, C) multi-hot.
        valid: (B, 1, h, w) 1 on image, 0 on padding.
    """
    mean = mean_over_image(activation, valid)
    variance = mean_over_image((activation - mean[..., None, None]).square(), valid)
    num_maps = labels.sum().clamp(min=1)
    return {
        "activation_mean": (mean * labels).sum() / num_maps,
        "activation_contrast": (variance.sqrt() * labels).sum() / num_maps,
    }
