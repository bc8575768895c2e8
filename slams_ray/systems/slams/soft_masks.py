"""Soft masks that training multiplies images by, made from logits."""

import torch
from torch.nn import functional as F

SMALLEST_PEAK = 1e-3


def soft_masks(logits: torch.Tensor, valid: torch.Tensor, form: str) -> torch.Tensor:
    """Returns (B, C, h, w) maps in [0, 1] that mask images in training.

    The form "sigmoid" is that of the literature. The form "normalised" is softplus divided by its
    maximum, as inference divides by the maximum. Such maps can neither shrink towards 0 nor fade to
    a uniform grey. They are usable from the first step after a CAM classifier, whose sigmoid is
    saturated.

    Args:
        logits: (B, C, h, w).
        valid: (B, 1, h, w) 1 on image, 0 on padding. Padding is left out of the maximum.
    """
    if form == "sigmoid":
        return logits.sigmoid()
    positive = F.softplus(logits)
    peak = (positive * valid).amax(dim=(2, 3), keepdim=True).detach()
    return (positive / peak.clamp(min=SMALLEST_PEAK)).clamp(max=1)


def binarise_softly(masks: torch.Tensor, thresholds: torch.Tensor, width: float) -> torch.Tensor:
    """Turns masks into nearly binary ones: sigmoid((mask - threshold) / width), (N, 1, H, W).

    Args:
        masks: (N, 1, H, W) in [0, 1].
        thresholds: (N,), one per mask.
    """
    return ((masks - thresholds[:, None, None, None]) / width).sigmoid()
