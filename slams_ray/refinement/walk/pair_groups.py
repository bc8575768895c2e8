"""Labels at both ends, and the largest value on the path, of all pairs of cells, in torch.

A CPU takes the pairs of one offset after another, by slices, which stay in its cache. A GPU would
start over 4,000 kernels for the 152 offsets of radius 10, so it takes many offsets at once.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import torch
from torch.nn import functional as F

from slams_ray.metrics import IGNORE_INDEX
from slams_ray.refinement.walk.paths import Pairs, half_plane_offsets, pairs_within, path_cells

PAIRS_AT_ONCE = 1 << 24
"""Pairs that a GPU holds at once, at about 50 bytes each."""


class PairGroup(ABC):
    """Some of the pairs of cells of a grid that are nearer than a radius.

    Results have the images first and one number for each pair.
    """

    @abstractmethod
    def ends(self, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, ...) each, of (B, h, w) labels: those of the first and of the second cells.

        A pair that leaves the grid has `IGNORE_INDEX` at its second cell.
        """

    @abstractmethod
    def largest(self, values: torch.Tensor) -> torch.Tensor:
        """(B, ...): the largest of (B, h, w) values on the path of each pair."""


def pair_groups(
    radius: int, size: tuple[int, int], num_images: int, device: torch.device
) -> Iterator[PairGroup]:
    """Yields groups that together have every pair of a (h, w) grid once."""
    if device.type == "cpu":
        yield from map(SlicedPairs, pairs_within(radius, size))
    else:
        at_once = max(1, PAIRS_AT_ONCE // (num_images * size[0] * size[1]))
        yield from gathered_pairs(radius, at_once, device)


class SlicedPairs(PairGroup):
    """All pairs of one offset, by slices and running maxima."""

    def __init__(self, pairs: Pairs) -> None:
        self.pairs = pairs

    def ends(self, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return labels[self.pairs.sources], labels[self.pairs.targets]

    def largest(self, values: torch.Tensor) -> torch.Tensor:
        first, *others = self.pairs.path
        largest = values[self.pairs.region(first)].clone()
        for cell in others:
            torch.maximum(largest, values[self.pairs.region(cell)], out=largest)
        return largest


class Offsets(NamedTuple):
    """K offsets on a device, as indices of `_windows`.

    Attributes:
        targets: (K,) rows and (K,) columns of the second cell.
        path: (K,) rows and (K,) columns for each place on the longest path. Shorter paths repeat
            their last cell.
    """

    targets: tuple[torch.Tensor, torch.Tensor]
    path: list[tuple[torch.Tensor, torch.Tensor]]


class GatheredPairs(PairGroup):
    """All pairs of several offsets at once, from every cell of the grid."""

    def __init__(self, radius: int, offsets: Offsets) -> None:
        self.radius, self.offsets = radius, offsets

    def ends(self, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        second = _windows(labels, self.radius, IGNORE_INDEX)[:, *self.offsets.targets]
        return labels[:, None], second

    def largest(self, values: torch.Tensor) -> torch.Tensor:
        windows = _windows(values, self.radius, 0)
        first, *others = self.offsets.path
        largest = windows[:, *first]
        for rows, columns in others:
            torch.maximum(largest, windows[:, rows, columns], out=largest)
        return largest


def _windows(values: torch.Tensor, radius: int, outside: int) -> torch.Tensor:
    """(B, r, 2 r - 1, h, w) view: (B, h, w) values dy rows below and dx + r - 1 columns beside."""
    height, width = values.shape[1:]
    reach = radius - 1
    padded = F.pad(values, (reach, reach, 0, reach), value=outside)
    return padded.unfold(1, height, 1).unfold(2, width, 1)


@lru_cache(maxsize=8)
def gathered_pairs(radius: int, at_once: int, device: torch.device) -> list[GatheredPairs]:
    """Returns groups of at most `at_once` offsets, with paths of similar length."""
    offsets = sorted(half_plane_offsets(radius), key=lambda offset: len(path_cells(offset)))
    return [
        GatheredPairs(radius, _indexed(offsets[start : start + at_once], radius, device))
        for start in range(0, len(offsets), at_once)
    ]


def _indexed(offsets: list[tuple[int, int]], radius: int, device: torch.device) -> Offsets:
    paths = [path_cells(offset) for offset in offsets]
    longest = max(map(len, paths))
    filled = [path + path[-1:] * (longest - len(path)) for path in paths]
    # Places first: (places + 1, K, 2), with the second cells in front.
    cells = torch.tensor([offsets, *zip(*filled, strict=True)], device=device)
    columns = cells[..., 1] + (radius - 1)
    targets, *path = zip(cells[..., 0].unbind(), columns.unbind(), strict=True)
    return Offsets(targets=targets, path=path)
