"""Logits resized to pixels part by part, so that what is made of them stays in a CPU's cache.

A resized batch takes tens of megabytes. Softmax, loss and maximum would each read and write it.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache

import torch
from torch.nn import functional as F

from slams_ray.networks.precision import at_least_float32

PART_BYTES = 2**20
"""Largest size of a part for each computing thread, about the second cache of a core."""


class ResizedLogits:
    """Logits resized bilinearly to pixels, as `F.interpolate` with `align_corners=False`.

    On a CPU one logit that is not finite makes most pixels of its image nan.

    Args:
        logits: (B, K, h, w).
        size: H and W.
    """

    def __init__(self, logits: torch.Tensor, size: tuple[int, int]) -> None:
        self.size = size
        self.logits = at_least_float32(logits)
        if self.logits.device.type == "cpu":
            to_columns = resizing_weights(logits.shape[3], size[1], self.logits.dtype)
            self.wide = self.logits.contiguous() @ to_columns.T

    def part(self, images: slice, rows: slice) -> torch.Tensor:
        """Returns some rows of some images, (b, K, n, W). Nothing else uses their memory."""
        if self.logits.device.type == "cpu":
            source, weights = source_rows(self.logits.shape[2], self.size[0], rows, self.wide.dtype)
            return weights @ self.wide[images, :, source]
        resized = F.interpolate(
            self.logits[images], size=self.size, mode="bilinear", align_corners=False
        )
        return resized[:, :, rows]


def softmax_sums(
    passes: Sequence[ResizedLogits],
) -> Iterator[tuple[tuple[slice, slice], torch.Tensor]]:
    """Yields images and rows, as `parts`, and their (b, K, n, W) softmax summed over passes."""
    first = passes[0]
    for part in parts((*first.logits.shape[:2], *first.size), first.logits.device):
        total = first.part(*part).softmax(dim=1)
        for logits in passes[1:]:
            total += logits.part(*part).softmax(dim=1)
        yield part, total


def parts(shape: tuple[int, int, int, int], device: torch.device) -> Iterator[tuple[slice, slice]]:
    """Yields which images and which rows of (B, K, H, W) maps are computed together.

    On a CPU a part has at most `PART_BYTES` for each thread, and at least a row. On other devices
    all is one part.
    """
    count, num_maps, height, width = shape
    if device.type != "cpu":
        yield slice(0, count), slice(0, height)
        return
    num_rows = PART_BYTES * torch.get_num_threads() // (num_maps * width * torch.float32.itemsize)
    num_images, num_rows = max(num_rows // height, 1), min(max(num_rows, 1), height)
    for image in range(0, count, num_images):
        for row in range(0, height, num_rows):
            rows = slice(row, min(row + num_rows, height))
            yield slice(image, min(image + num_images, count)), rows


@lru_cache(maxsize=16)
def resizing_weights(source: int, size: int, dtype: torch.dtype) -> torch.Tensor:
    """(size, source) weights on a CPU by which bilinear resizing makes pixels of values."""
    # A tensor made in inference mode could never be part of a training.
    with torch.inference_mode(False), torch.no_grad():
        each = torch.eye(source, dtype=dtype)[:, None]
        resized = F.interpolate(each, size=size, mode="linear", align_corners=False)
        return resized[:, 0].T.contiguous()


def source_rows(
    source: int, size: int, rows: slice, dtype: torch.dtype
) -> tuple[slice, torch.Tensor]:
    """Returns the rows of values that some rows of pixels are made of, and their weights."""
    weights = resizing_weights(source, size, dtype)[rows]
    used = weights.any(dim=0).nonzero()
    needed = slice(int(used[0]), int(used[-1]) + 1)
    return needed, weights[:, needed]
