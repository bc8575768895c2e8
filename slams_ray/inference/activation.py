"""From logits to stored activations (CAM inference of IRN, CLIMS, SemFormer)."""

import numpy as np
import torch
from torch.nn import functional as F

from slams_ray.data.stored_maps import STORED_LEVELS

NORMALISATION_EPSILON = 1e-5


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
