"""From logits to stored activations (CAM inference of IRN, CLIMS, SemFormer)."""

import numpy as np
import torch
from torch.nn import functional as F

from slams_ray.core.seed import STORED_LEVELS

NORMALISATION_EPSILON = 1e-5
SMALLEST_PEAK = 1e-3


def fuse_pair(
    logits: torch.Tensor,
    flipped_logits: torch.Tensor | None,
    size: tuple[int, int],
    max_logit: float | None = None,
) -> torch.Tensor:
    """ReLU(logits) of one scale on the stored grid, plus those of the mirrored image.

    Resizing comes before mirroring, so that mirroring the input mirrors the sum bit for bit.

    Args:
        logits: (C, h, w) float.
        flipped_logits: (C, h, w) logits of the horizontally mirrored image, or None.
        size: (H, W) of the stored grid.
        max_logit: higher logits count as this; None counts them as they are.

    Returns:
        (C, H, W) float, non-negative.
    """
    fused = resize_maps(logits.clamp(0, max_logit), size)
    if flipped_logits is not None:
        fused = fused + resize_maps(flipped_logits.clamp(0, max_logit), size).flip(-1)
    return fused


def resize_maps(maps: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Bilinear resize of (N, h, w) maps to (N, *size); N may be 0."""
    if maps.shape[0] == 0 or maps.shape[-2:] == torch.Size(size):
        return maps.new_zeros((0, *size)) if maps.shape[0] == 0 else maps
    return F.interpolate(maps[None], size=size, mode="bilinear", align_corners=False)[0]


def max_normalise(activation: torch.Tensor) -> torch.Tensor:
    """Divides every map of (N, H, W) by its own maximum + 1e-5; an empty stack stays empty."""
    if activation.shape[0] == 0:
        return activation
    return activation / (activation.amax(dim=(-2, -1), keepdim=True) + NORMALISATION_EPSILON)


def quantise(activation: torch.Tensor) -> np.ndarray:
    """[0, 1] float maps to uint8 0..255, rounded to nearest."""
    return (
        (activation * STORED_LEVELS).round().clamp(0, STORED_LEVELS).to(torch.uint8).cpu().numpy()
    )


def soft_masks(logits: torch.Tensor, valid: torch.Tensor, form: str) -> torch.Tensor:
    """Maps in [0, 1] that mask images in training.

    sigmoid is the form of the literature. normalised is softplus over its maximum, as inference
    divides by the maximum: maps can then neither shrink towards 0 nor fade to a uniform grey, and
    those of a CAM classifier, whose sigmoid is saturated, are usable from the first step.

    Args:
        logits: (B, C, h, w).
        valid: (B, 1, h, w) 1 on image, 0 on padding, which has no say in the maximum.
    """
    if form == "sigmoid":
        return logits.sigmoid()
    positive = F.softplus(logits)
    peak = (positive * valid).amax(dim=(2, 3), keepdim=True).detach()
    return (positive / peak.clamp(min=SMALLEST_PEAK)).clamp(max=1)


def cut_masks(masks: torch.Tensor, thresholds: torch.Tensor, width: float) -> torch.Tensor:
    """(N, 1, H, W) masks as regions: sigmoid((mask - threshold) / width).

    Args:
        masks: (N, 1, H, W) in [0, 1].
        thresholds: (N,) one for each mask.
    """
    return ((masks - thresholds[:, None, None, None]) / width).sigmoid()
