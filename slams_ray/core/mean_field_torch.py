"""Dense CRF on permutohedral lattices in torch, on a GPU where this process has one.

The method is that of `mean_field`. Splat, each blur and slice are sums of few weighted rows, which
torch calls an embedding bag: one kernel each, and none adds atomically, so results do not depend
on the order in which threads come.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
import torch.nn.functional as F

from slams_ray.core.crf import CrfKernels, check_image, check_unary
from slams_ray.core.lattice_points import (
    axis_scale,
    kernel_points,
    key_steps,
    key_strides,
    relative_energy,
)

MAX_CHANNELS = 64
"""Labels less one, times unaries, that one pass takes: 0.2 GB for a million pixels."""


class TorchCrf:
    """Mean-field inference on one image, its lattices built once.

    Args:
        image: (H, W, 3) uint8 RGB.
        num_labels: L >= 2; the lattices do not depend on it.
        device: where it computes; None takes a GPU where this process has one.
    """

    def __init__(
        self,
        image: np.ndarray,
        num_labels: int,
        kernels: CrfKernels,
        device: torch.device | None = None,
    ) -> None:
        check_image(image)
        if num_labels < 2:
            raise ValueError(f"num_labels is {num_labels}, expected >= 2")
        self._shape = (num_labels, *image.shape[:2])
        self._device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._kernels = [
            (_build(torch.from_numpy(features).to(self._device)), compat)
            for features, compat in kernel_points(image, kernels)
        ]

    def infer(self, unary: np.ndarray, iterations: int) -> np.ndarray:
        """(L, H, W) posterior, float32, of an (L, H, W) energy (negative log probability)."""
        return next(self.infer_all([unary], iterations))

    def infer_all(self, unaries: Iterable[np.ndarray], iterations: int) -> Iterator[np.ndarray]:
        """The posterior of each of several energies; holds as many as share a pass."""
        together = max(1, MAX_CHANNELS // (self._shape[0] - 1))
        waiting = iter(unaries)
        while group := list(islice(waiting, together)):
            yield from self._infer_together(group, iterations)

    @torch.inference_mode()
    def _infer_together(self, unaries: Sequence[np.ndarray], iterations: int) -> np.ndarray:
        """(G, L, H, W) posteriors of G energies in one pass."""
        for unary in unaries:
            check_unary(unary, self._shape)
        energy = np.concatenate([relative_energy(unary) for unary in unaries])
        logits = torch.from_numpy(energy).to(self._device).T.contiguous()
        posterior = _softmax(logits, len(unaries))
        for _ in range(iterations):
            relative = (posterior[..., 1:] - posterior[..., :1]).flatten(1)
            messages = [compat * lattice.filter(relative) for lattice, compat in self._kernels]
            posterior = _softmax(torch.stack([logits, *messages]).sum(dim=0), len(unaries))
        return posterior.permute(1, 2, 0).reshape(-1, *self._shape).cpu().numpy()


@dataclass(frozen=True, kw_only=True, eq=False)
class _Lattice:
    """The filter D^-1/2 K D^-1/2 of N points over V vertices (see `lattice.Lattice`).

    Attributes:
        vertices: (N, d + 1) int64, the simplex of each point.
        weights: (N, d + 1) float32.
        points: (N (d + 1),) int64, the points that splat on the first vertex, then the second, ...
        point_weights: (N (d + 1),) float32, their weights.
        starts: (V + 1,) int64, where those of each vertex begin; the last one has none.
        neighbours: (d + 1, V + 1, 3) int64: vertex and its neighbours in each direction; V, which
            is always zero, where there is none.
    """

    vertices: torch.Tensor
    weights: torch.Tensor
    points: torch.Tensor
    point_weights: torch.Tensor
    starts: torch.Tensor
    neighbours: torch.Tensor

    def filter(self, values: torch.Tensor) -> torch.Tensor:
        """(N, C) float32 to the same."""
        spread = F.embedding_bag(
            self.points,
            values,
            self.starts,
            mode="sum",
            per_sample_weights=self.point_weights,
        )
        return _sum_rows(self.vertices, self._blur(spread), self.weights)

    def _blur(self, spread: torch.Tensor) -> torch.Tensor:
        pattern = torch.tensor([1, 0.5, 0.5], device=spread.device)
        weights = pattern.expand(len(spread), 3).contiguous()
        for rows in self.neighbours:
            spread = _sum_rows(rows, spread, weights)
        return spread


@torch.inference_mode()
def _build(features: torch.Tensor) -> _Lattice:
    """The lattice of points with (d, N) float32 features."""
    num_dims, num_points = features.shape
    scaled = features * torch.from_numpy(axis_scale(num_dims)).to(features.device)[:, None]
    extent = scaled.amax(dim=1) - scaled.amin(dim=1)
    strides = key_strides(extent.cpu().numpy())
    steps = torch.from_numpy(key_steps(strides)).to(features.device)
    offset, rank, base = _enclose(scaled, torch.from_numpy(strides).to(features.device))
    ordered = torch.empty_like(offset).scatter_(0, rank, offset)
    hop = torch.empty_like(rank).scatter_(0, rank, steps[:, None].expand_as(rank))
    # From vertex k to k + 1 leads the direction in which the point has rank d - k.
    keys = base + torch.cat([torch.zeros_like(hop[:1]), hop.flip(0)[:-1].cumsum(dim=0)])
    weights = ordered.flip(0) - torch.cat([ordered[:1] - 1, ordered.flip(0)[:-1]])

    by_vertex, order = keys.T.flatten().sort(stable=True)
    is_first = torch.ones_like(by_vertex, dtype=torch.bool)
    is_first[1:] = by_vertex[1:] != by_vertex[:-1]
    vertices = torch.empty_like(order).scatter_(0, order, is_first.cumsum(dim=0) - 1)
    lattice = _Lattice(
        vertices=vertices.view(num_points, num_dims + 1),
        weights=weights.T.contiguous(),
        points=order // (num_dims + 1),
        point_weights=weights.T.flatten()[order],
        starts=F.pad(is_first.nonzero()[:, 0], (0, 1), value=len(order)),
        neighbours=_link(by_vertex[is_first], steps),
    )
    return _normalised(lattice, order)


def _enclose(
    scaled: torch.Tensor, strides: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Places points relative to the nearest vertex of remainder 0, as `lattice` does.

    Returns:
        offset (d + 1, N) float32, the point less the vertex, over d + 1; rank (d + 1, N) int64,
        each coordinate's place by descending offset; base (N,) int64, the vertex's key.
    """
    num_dims = len(scaled)
    num_axes = num_dims + 1
    # Onto the hyperplane of coordinates that sum to zero, in pydensecrf's order of operations.
    total = torch.zeros_like(scaled[0])
    coordinates = []
    for j in range(num_dims, 0, -1):
        coordinates.append(total - j * scaled[j - 1])
        total = total + scaled[j - 1]
    offset = torch.stack([total, *reversed(coordinates)])
    nearest = (offset / num_axes).round()
    offset = offset - nearest * num_axes
    # The rounded coordinates may sum to more or less than zero; ranks tell which ones give way.
    rank = nearest.sum(dim=0).long().expand_as(offset).clone()
    for i in range(num_axes):
        rank[i] += (offset[i] <= offset[:i]).sum(dim=0) + (offset[i] < offset[i + 1 :]).sum(dim=0)
    turn = (rank < 0).long() - (rank > num_dims).long()
    coordinate = (nearest.long() + turn)[:num_dims] * num_axes
    base = (coordinate * strides[:, None]).sum(dim=0)
    return offset / num_axes - turn, rank + turn * num_axes, base


def _link(keys: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
    """Neighbours of the vertices with (V,) ascending keys."""
    own = torch.arange(len(keys) + 1, device=keys.device)
    sides = []
    for sign in (-1, 1):
        wanted = keys + sign * steps[:, None]
        slot = torch.searchsorted(keys, wanted).clamp(max=len(keys) - 1)
        found = torch.where(keys[slot] == wanted, slot, len(keys))
        sides.append(F.pad(found, (0, 1), value=len(keys)))
    return torch.stack([own.expand(len(steps), -1), *sides], dim=2)


def _normalised(lattice: _Lattice, order: torch.Tensor) -> _Lattice:
    """The same lattice with weights that make the filter symmetrically normalised."""
    num_points, num_corners = lattice.weights.shape
    scale = 1 / (1 + 2.0 ** (1 - num_corners))
    ones = torch.ones(num_points, 1, device=lattice.weights.device)
    # One factor before the filter and one after it; the filter's scale rides on both.
    factor = (scale / (scale * lattice.filter(ones) + 1e-20)).sqrt()
    weights = lattice.weights * factor
    return _Lattice(
        **vars(lattice) | {"weights": weights, "point_weights": weights.flatten()[order]}
    )


def _sum_rows(rows: torch.Tensor, values: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """(M, C) sums of `values` (V, C) at (M, K) rows, weighted."""
    return F.embedding_bag(rows, values, mode="sum", per_sample_weights=weights)


def _softmax(logits: torch.Tensor, num_unaries: int) -> torch.Tensor:
    """(N, G, L) probabilities of (N, G (L - 1)) logits relative to label 0."""
    others = logits.view(len(logits), num_unaries, -1)
    return F.pad(others, (1, 0)).softmax(dim=2)
