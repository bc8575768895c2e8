"""Permutohedral lattice in torch (see `lattice`), for GPUs.

Splat, each blur and slice are sums of few weighted rows, which torch calls an embedding bag: one
kernel each, and none adds atomically, so results do not depend on the order in which threads come.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from slams_ray.refinement.crf.lattice_points import axis_scale, key_steps, key_strides


@dataclass(frozen=True, kw_only=True, eq=False)
class TorchLattice:
    """The filter D^-1/2 K D^-1/2 of N points over V vertices (see `lattice.Lattice`).

    Attributes:
        vertices: (N, d + 1) int32, the simplex of each point.
        weights: (N, d + 1) float32.
        points: (N (d + 1),) int32, the points that splat on the first vertex, then the second, ...
        point_weights: (N (d + 1),) float32, their weights.
        starts: (V + 1,) int32, where those of each vertex begin; the last one has none.
        neighbours: (d + 1, V + 1, 3) int32: vertex and its neighbours in each direction; V, which
            is always zero, where there is none.
        blur_weights: (V + 1, 3) float32, 1 for the vertex and 1/2 for its neighbours.
    """

    vertices: torch.Tensor
    weights: torch.Tensor
    points: torch.Tensor
    point_weights: torch.Tensor
    starts: torch.Tensor
    neighbours: torch.Tensor
    blur_weights: torch.Tensor

    def filter(self, values: torch.Tensor) -> torch.Tensor:
        """(N, C) float32 to the same."""
        spread = F.embedding_bag(
            self.points,
            values,
            self.starts,
            mode="sum",
            per_sample_weights=self.point_weights,
        )
        for rows in self.neighbours:
            spread = _sum_rows(rows, spread, self.blur_weights)
        return _sum_rows(self.vertices, spread, self.weights)


@torch.inference_mode()
def build_lattice(features: torch.Tensor) -> TorchLattice:
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
    neighbours = _link(by_vertex[is_first], steps)
    lattice = TorchLattice(
        vertices=vertices.int().view(num_points, num_dims + 1),
        weights=weights.T.contiguous(),
        points=(order // (num_dims + 1)).int(),
        point_weights=weights.T.flatten()[order],
        starts=F.pad(is_first.nonzero()[:, 0], (0, 1), value=len(order)).int(),
        neighbours=neighbours,
        blur_weights=weights.new_tensor([1, 0.5, 0.5]).repeat(neighbours.shape[1], 1),
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
    return torch.stack([own.expand(len(steps), -1), *sides], dim=2).int()


def _normalised(lattice: TorchLattice, order: torch.Tensor) -> TorchLattice:
    """The same lattice with weights that make the filter symmetrically normalised."""
    num_points, num_corners = lattice.weights.shape
    scale = 1 / (1 + 2.0 ** (1 - num_corners))
    ones = torch.ones(num_points, 1, device=lattice.weights.device)
    # One factor before the filter and one after it; the filter's scale rides on both.
    factor = (scale / (scale * lattice.filter(ones) + 1e-20)).sqrt()
    weights = lattice.weights * factor
    return TorchLattice(
        **vars(lattice) | {"weights": weights, "point_weights": weights.flatten()[order]}
    )


def _sum_rows(rows: torch.Tensor, values: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """(M, C) sums of `values` (V, C) at (M, K) rows, weighted."""
    return F.embedding_bag(rows, values, mode="sum", per_sample_weights=weights)
