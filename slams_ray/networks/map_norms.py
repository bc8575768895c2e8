"""Norms of maps over the image."""

import torch

EPSILON = 1e-5


def max_normalised(logits: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """(B, C, h, w) ReLU(logits) divided by its maximum over the image + 1e-5; 0 on padding.

    Args:
        logits: (B, C, h, w).
        valid: (B, 1, h, w) 1 on image, 0 on padding.
    """
    positive = logits.float().relu() * valid
    return positive / (positive.amax(dim=(2, 3), keepdim=True) + EPSILON)


def min_max_normalised(logits: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """(B, C, h, w) ReLU(logits), shifted and scaled to the range from 0 to 1; 0 on padding.

    Args:
        logits, valid: see `max_normalised`.
    """
    positive = logits.float().relu()
    padding = valid == 0
    low = positive.masked_fill(padding, torch.inf).amin(dim=(2, 3), keepdim=True)
    return max_normalised(positive - low, valid)
