"""Turns logits into activations as they are stored (docs/method.md, Inference)."""

from collections.abc import Sequence

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
    """Sums ReLU(logits) of an image and of its mirror image, at one scale, on the stored grid.

    Maps are resized before they are mirrored. Mirroring the input then mirrors the sum bit by bit.

    Args:
        logits: (C, h, w) float.
        flipped_logits: (C, h, w) logits of the horizontally mirrored image, or None.
        size: (H, W) of the stored grid.
        max_logit: value that higher logits are clipped to; None clips nothing.

    Returns:
        (C, H, W) float, non-negative.
    """
    flipped = None if flipped_logits is None else flipped_logits.clamp(0, max_logit)
    return sum_pair(logits.clamp(0, max_logit), flipped, size)


def sum_pair(
    maps: torch.Tensor, flipped_maps: torch.Tensor | None, size: tuple[int, int]
) -> torch.Tensor:
    """Sums maps of an image and of its mirror image on the stored grid; see `fuse_pair`."""
    total = resize_maps(maps, size)
    if flipped_maps is not None:
        total = total + resize_maps(flipped_maps, size).flip(-1)
    return total


def resize_maps(maps: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Resizes (N, h, w) maps bilinearly to (N, *size); N may be 0."""
    if maps.shape[0] == 0 or maps.shape[-2:] == torch.Size(size):
        return maps.new_zeros((0, *size)) if maps.shape[0] == 0 else maps
    return F.interpolate(maps[None], size=size, mode="bilinear", align_corners=False)[0]


def max_normalise(activation: torch.Tensor) -> torch.Tensor:
    """Divides each of (N, H, W) maps by its own maximum + 1e-5; N may be 0."""
    if activation.shape[0] == 0:
        return activation
    return activation / (activation.amax(dim=(-2, -1), keepdim=True) + NORMALISATION_EPSILON)


def quantise(activation: torch.Tensor) -> torch.Tensor:
    """Turns float maps in [0, 1] into uint8 0..255, rounded to nearest."""
    return (activation * STORED_LEVELS).round().clamp(0, STORED_LEVELS).to(torch.uint8)


def to_host(tensors: Sequence[torch.Tensor]) -> list[np.ndarray]:
    """Copies tensors of one dtype from their device at once: each copy would wait for the GPU."""
    if not tensors:
        return []
    copied = torch.cat([tensor.flatten() for tensor in tensors]).cpu().numpy()
    ends = np.cumsum([tensor.numel() for tensor in tensors])[:-1]
    parts = np.split(copied, ends)
    return [part.reshape(t.shape) for part, t in zip(parts, tensors, strict=True)]
