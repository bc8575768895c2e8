"""What teaches the edge network: pairs of like labels have no edge between them, others have one.

Source: IRN, Ahn et al. 2019, section 4. A pair of cells is affine by a = 1 - the largest edge on
its path. So one cell decides each pair: it is enough to count, for every cell, the pairs of each
kind that it decides. The counts need no gradient, and the loss is a sum over cells.
"""

from typing import NamedTuple

import torch
from torch.nn import functional as F

from slams_ray.data.stored_maps import stored_size
from slams_ray.metrics import IGNORE_INDEX
from slams_ray.refinement.walk.pair_groups import pair_groups

EPSILON = 1e-5
KINDS = ("background", "foreground", "different")
"""Pairs of two background cells, of two cells of one class, and of cells of two classes."""
BACKGROUND, FOREGROUND, DIFFERENT, IGNORED = range(4)


class PairSums(NamedTuple):
    """Loss of an image's pairs, not divided yet: workers add sums and counts before they divide.

    Attributes:
        sums: (B, 3) loss over the pairs of each of `KINDS`, with gradient.
        counts: (B, 3) float32 number of these pairs.
    """

    sums: torch.Tensor
    counts: torch.Tensor


def affinity_sums(logits: torch.Tensor, labels: torch.Tensor, radius: int) -> PairSums:
    """Sums of -log(a + 1e-5) over like pairs, and of -log(1 + 1e-5 - a) over different ones.

    The gradient of a pair reaches the largest cell of its path alone; of equal ones, the last.

    Args:
        logits: (B, h, w) of edges.
        labels: (B, H, W) class indices, `IGNORE_INDEX` where there is no confident one. The nearest
            label of each cell counts.
        radius: pairs are nearer than this, in cells.
    """
    logits = logits.float()
    small = labels_on_grid(labels, (logits.shape[1], logits.shape[2]))
    decided = decided_pairs(logits.detach(), small, radius)
    affinity = (-logits).sigmoid()
    like = -(affinity + EPSILON).log()
    different = -(1 + EPSILON - affinity).log()
    losses = torch.stack([like, like, different], dim=1)
    return PairSums((decided * losses).sum(dim=(2, 3)), decided.sum(dim=(2, 3)))


@torch.no_grad()
def pair_counts(labels: torch.Tensor, radius: int) -> torch.Tensor:
    """(B, 3) float32: number of pairs of each of `KINDS`, the counts of `affinity_sums`.

    Args:
        labels: (B, H, W), as in `affinity_sums`, whose logits have the size of the stored maps.
    """
    size = stored_size(labels.shape[1], labels.shape[2])
    small = labels_on_grid(labels, size)
    counts = torch.zeros(len(labels), IGNORED, dtype=torch.int64, device=labels.device)
    for group in pair_groups(radius, size, len(labels), labels.device):
        kinds = _kinds(*group.ends(small)).flatten(1)
        counts += torch.stack([(kinds == kind).sum(dim=1) for kind in range(IGNORED)], dim=1)
    return counts.float()


def affinity_terms(sums: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """(..., 3) mean of each kind; 0 for one without pairs.

    Args:
        sums: (..., 3).
        counts: (..., 3) or (3,): numbers of pairs, or their means over images.
    """
    return sums / torch.where(counts > 0, counts, 1)


def affinity_loss(terms: torch.Tensor) -> torch.Tensor:
    """(...) of (..., 3) means: background / 4 + foreground / 4 + different / 2."""
    background, foreground, different = terms.unbind(dim=-1)
    return background / 4 + foreground / 4 + different / 2


def labels_on_grid(labels: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """(B, h, w) int64: the label of (B, H, W) nearest to the centre of each cell."""
    return F.interpolate(labels[:, None].float(), size=size, mode="nearest-exact")[:, 0].long()


@torch.no_grad()
def decided_pairs(edges: torch.Tensor, labels: torch.Tensor, radius: int) -> torch.Tensor:
    """(B, 3, h, w) float32: pairs of each of `KINDS` on whose path a cell is the largest.

    Cells are compared by their rank in the image, which also says which cell it was.

    Args:
        edges: (B, h, w), in any order-preserving form.
        labels: (B, h, w) int64.
    """
    num_images, height, width = edges.shape
    num_cells = height * width
    ranks = _ranks(edges.flatten(1)).view_as(edges)
    image = torch.arange(num_images, device=edges.device)[:, None] * (IGNORED + 1)
    counts = torch.zeros(
        num_images * (IGNORED + 1) * num_cells, dtype=torch.int32, device=edges.device
    )
    one = counts.new_ones(1)
    for group in pair_groups(radius, (height, width), num_images, edges.device):
        kinds = _kinds(*group.ends(labels)).flatten(1)
        index = (image + kinds) * num_cells + group.largest(ranks).flatten(1)
        counts.scatter_add_(0, index.flatten(), one.expand(index.numel()))
    by_rank = counts.view(num_images, IGNORED + 1, num_cells)[:, :IGNORED]
    cells = ranks.flatten(1).long()[:, None].expand(-1, IGNORED, -1)
    return by_rank.gather(2, cells).view(num_images, IGNORED, height, width).float()


def _ranks(values: torch.Tensor) -> torch.Tensor:
    """(B, N) int32: the place of each of (B, N) values in ascending order."""
    order = values.argsort(dim=1, stable=True)
    places = torch.arange(values.shape[1], dtype=torch.int32, device=values.device)
    return torch.empty_like(order, dtype=torch.int32).scatter_(1, order, places.expand_as(order))


def _kinds(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """int64 index in `KINDS`, or `IGNORED` where one end has no label."""
    like = (first > 0).long()
    kinds = torch.where(first == second, like, DIFFERENT)
    return kinds.masked_fill_((first == IGNORE_INDEX) | (second == IGNORE_INDEX), IGNORED)
