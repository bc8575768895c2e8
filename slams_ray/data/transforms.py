"""Normalisation of images, and their pyramid of scales (torch)."""

from collections.abc import Iterator
from functools import lru_cache

import torch

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def normalise(
    images: torch.Tensor,
    boxes: torch.Tensor | None = None,
    layout: torch.memory_format = torch.channels_last,
) -> torch.Tensor:
    """Converts (B, H, W, 3) uint8 to (B, 3, H, W) float with ImageNet statistics; padding is 0.

    Args:
        layout: memory format of the result; networks compute channels last.
    """
    mean, std = _imagenet_statistics(images.device)
    scaled = (images.float() / 255 - mean) / std
    normalised = scaled.permute(0, 3, 1, 2).contiguous(memory_format=layout)
    return normalised if boxes is None else normalised * valid_mask(boxes, images.shape[1])


@lru_cache(maxsize=8)
def _imagenet_statistics(device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and std, each (3,), cached: copying them would synchronise the GPU."""
    return torch.tensor(IMAGENET_MEAN, device=device), torch.tensor(IMAGENET_STD, device=device)


def valid_mask(boxes: torch.Tensor, crop_px: int) -> torch.Tensor:
    """(B, 1, crop, crop) float, 1 on image and 0 on padding.

    Args:
        boxes: (B, 4) top, left, height and width of the image within the crop.
        crop_px: side of the crop.
    """
    axis = torch.arange(crop_px, device=boxes.device)[None]
    rows = (axis >= boxes[:, :1]) & (axis < boxes[:, :1] + boxes[:, 2:3])
    columns = (axis >= boxes[:, 1:2]) & (axis < boxes[:, 1:2] + boxes[:, 3:4])
    return (rows[:, None, :, None] & columns[:, None, None, :]).float()


def pyramid(image: torch.Tensor, scales: tuple[float, ...], flip: bool) -> Iterator[torch.Tensor]:
    """Yields (B, 3, H, W) normalised images at each scale, as (B, 3, h, w).

    With `flip` the mirrored images follow: (2 B, 3, h, w).
    """
    for scale in scales:
        size = tuple(max(1, round(side * scale)) for side in image.shape[-2:])
        scaled = image
        if size != tuple(image.shape[-2:]):
            scaled = torch.nn.functional.interpolate(
                image, size=size, mode="bilinear", align_corners=False, antialias=scale < 1
            )
        yield torch.cat([scaled, scaled.flip(-1)]) if flip else scaled
