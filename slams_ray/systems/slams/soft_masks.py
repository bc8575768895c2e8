"""From logits to the soft masks that training multiplies images by."""

import torch
from torch.nn import functional as F

SMALLEST_PEAK = 1e-3


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


def binarise_softly(masks: torch.Tensor, thresholds: torch.Tensor, width: float) -> torch.Tensor:
    """(N, 1, H, W) masks as regions: sigmoid((mask - threshold) / width).

    Args:
        masks: (N, 1, H, W) in [0, 1].
        thresholds: (N,) one for each mask.
    """
    return ((masks - thresholds[:, None, None, None]) / width).sigmoid()
