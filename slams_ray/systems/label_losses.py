"""Losses of systems that learn from pixel labels, on the grid of the logits."""

import torch
from torch.nn import functional as F

from slams_ray.metrics import IGNORE_INDEX

ABSENT_LOGIT = -1e4


def labels_at(target: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """Samples labels at the centres of the cells of a grid.

    Args:
        target: (B, H, W) class indices, or 255.
        logits: (B, K, h, w), which give the grid.

    Returns:
        (B, h, w) int64.
    """
    size = logits.shape[-2:]
    sampled = F.interpolate(target[:, None].float(), size=size, mode="nearest-exact")
    return sampled[:, 0].long()


def balanced_loss(logits: torch.Tensor, target: torch.Tensor, smoothing: float) -> torch.Tensor:
    """(B,) label-smoothed cross-entropy, mean of its means over background and object pixels.

    It is 0 for an image without a labelled pixel.

    Args:
        logits: (B, K, h, w).
        target: (B, h, w) int64 class indices, or 255.
        smoothing: share of the target that other classes get together.
    """
    log_p = logits.log_softmax(dim=1)
    known = target.masked_fill(target == IGNORE_INDEX, 0)
    own = log_p.gather(1, known[:, None])[:, 0]
    others = (log_p.sum(dim=1) - own) / (logits.shape[1] - 1)
    loss = -(1 - smoothing) * own - smoothing * others
    sides = torch.stack([target == 0, (target > 0) & (target != IGNORE_INDEX)], dim=1).float()
    counts = sides.sum(dim=(2, 3))
    means = (loss[:, None] * sides).sum(dim=(2, 3)) / counts.clamp(min=1)
    return means.sum(dim=1) / (counts > 0).sum(dim=1).clamp(min=1)


def pseudo_label_loss(
    logits: torch.Tensor, target: torch.Tensor, labels: torch.Tensor
) -> torch.Tensor:
    """(B,) cross-entropy of activation logits and pseudo labels, as `balanced_loss` (ours).

    The logit of background is 0, so ReLU of the logits is positive where an object is likelier.
    Absent classes do not compete.

    Args:
        logits: (B, C, h, w), one map for each class without background.
        target: (B, H, W) class indices of present classes, or 255.
        labels: (B, C) multi-hot.
    """
    present = logits.masked_fill(labels[:, :, None, None] == 0, ABSENT_LOGIT)
    every = F.pad(present, (0, 0, 0, 0, 1, 0))
    return balanced_loss(every, labels_at(target, logits), smoothing=0.0)
