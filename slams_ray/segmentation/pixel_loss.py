"""Cross-entropy of the pixels' labels (docs/method.md, Segmentation network)."""

from typing import Any

import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from slams_ray.metrics import IGNORE_INDEX
from slams_ray.networks.precision import at_least_float32
from slams_ray.networks.resized_logits import parts, resizing_weights, source_rows


def segmentation_loss(
    logits: torch.Tensor, target: torch.Tensor, divisors: torch.Tensor
) -> torch.Tensor:
    """Sum of the cross-entropy over the labelled pixels of each image, over its divisor, (B,).

    With an image's own number of labelled pixels it is their mean, and 0 without any. With the mean
    number over the global batch, the mean over images is that over all labelled pixels.

    Args:
        logits: (B, K, h, w); they are resized bilinearly to the target.
        target: (B, H, W) int64, `IGNORE_INDEX` where there is no label.
        divisors: (B,).
    """
    logits = at_least_float32(logits)
    if logits.device.type == "cpu":
        sums: torch.Tensor = _CrossEntropyInParts.apply(logits, target)
    else:
        sums = _cross_entropy(logits, target)
    return sums / torch.where(divisors > 0, divisors, 1)


def _cross_entropy(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    resized = F.interpolate(logits, size=target.shape[-2:], mode="bilinear", align_corners=False)
    pixel = F.cross_entropy(resized, target, ignore_index=IGNORE_INDEX, reduction="none")
    return pixel.sum(dim=(1, 2))


class _CrossEntropyInParts(torch.autograd.Function):
    """`_cross_entropy`, part by part, whose forward pass also computes the gradient."""

    @staticmethod
    def forward(ctx: Any, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        # Autocast would multiply matrices in bfloat16.
        with torch.autocast("cpu", enabled=False):
            sums, gradient = _sums_and_gradient(logits, target)
        ctx.save_for_backward(gradient)
        return sums

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        (of_logits,) = ctx.saved_tensors
        return of_logits * gradient[:, None, None, None], None


def _sums_and_gradient(
    logits: torch.Tensor, target: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the sums of the cross-entropy, (B,), and their gradient, (B, K, h, w).

    The gradient of a pixel is the softmax less 1 at its label. It reaches the logits by the weights
    of the resizing.
    """
    height, width = target.shape[1:]
    to_columns = resizing_weights(logits.shape[3], width, logits.dtype)
    wide = logits.contiguous() @ to_columns.T
    sums, gradient = wide.new_zeros(len(wide)), torch.zeros_like(wide)
    known = target != IGNORE_INDEX
    labels = target.masked_fill(~known, 0)[:, None]
    shares = known.to(logits.dtype)[:, None]
    for images, rows in parts((*logits.shape[:2], height, width), logits.device):
        source, weights = source_rows(logits.shape[2], height, rows, logits.dtype)
        pixels = weights @ wide[images, :, source]
        label, share = labels[images, :, rows], shares[images, :, rows]
        pixels -= pixels.amax(dim=1, keepdim=True)
        own = pixels.gather(1, label)
        total = pixels.exp_().sum(dim=1, keepdim=True)
        sums[images] += ((total.log() - own) * share).sum(dim=(1, 2, 3))
        pixels.mul_(share / total).scatter_add_(1, label, -share)
        gradient[images, :, source] += weights.T @ pixels
    return sums, gradient @ to_columns
