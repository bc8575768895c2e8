"""Permutohedral lattice in torch (see `lattice`), for GPUs.

Splat, each blur and slice are sums of a few weighted rows. torch's embedding bag computes each in
one kernel without atomic additions, so results do not depend on the order of threads.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from slams_ray.refinement.crf.lattice_points import axis_scale, key_steps, key_strides


@dataclass(frozen=True, kw_only=True, eq=False)
class TorchLattice:
    """Filter D^-1/2 K D^-1/2 of N points over V vertices (see `lattice.Lattice`).

    Attributes:
        vertices: (N, d + 1) int32, the vertices of each point's simplex.
        weights: (N, d + 1) float32.
        points: (N (d + 1),) int32, the points that splat on vertex 0, then those of vertex 1, ...
        point_weights: (N (d + 1),) float32, weights of `points`.
        starts: (V + 1,) int32, where the points of each vertex begin. The last vertex has none.
        neighbours: (d + 1, V + 1, 3) int32: vertex and its neighbours in each direction. Missing
            neighbours are vertex V, whose value is always zero.
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
        """Filters (N, C) float32 values; the result has the same shape."""
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
    """Builds the lattice of (d, N) float32 features, in standard deviations of the kernel."""
    num_dims, num_points = features.shape
    scaled = features * torch.from_numpy(axis_scale(num_dims)).to(features.device)[:, None]
    extent = scaled.amax(dim=1) - scaled.amin(dim=1)
    strides = key_strides(extent.cpu().numpy())
    steps = torch.from_numpy(key_steps(strides)).to(features.device)
    offset, rank, base = _enclose(scaled, torch.from_numpy(strides).to(features.device))
    ordered = torch.empty_like(offset).scatter_(0, rank, offset)
    hop = torch.empty_like(rank).scatter_(0, rank, steps[:, None].expand_as(rank))
    # Vertex k + 1 follows vertex k in the direction in which the point has rank d - k.
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
    """Finds the nearest vertex of remainder 0 of each point, as `lattice` does.

    Returns:
        offset (d + 1, N) float32, (point - vertex) / (d + 1); rank (d + 1, N) int64, each
        coordinate's rank by descending offset; base (N,) int64, the vertex's key.
    """
    num_dims = len(scaled)
    num_axes = num_dims + 1
    # Project onto the hyperplane of coordinates that sum to zero, in pydensecrf's order of
    # operations.
    total = torch.zeros_like(scaled[0])
    coordinates = []
    for j in range(num_dims, 0, -1):
        coordinates.append(total - j * scaled[j - 1])
        total = total + scaled[j - 1]
    offset = torch.stack([total, *reversed(coordinates)])
    nearest = (offset / num_axes).round()
    offset = offset - nearest * num_axes
    # The rounded coordinates may not sum to zero. Ranks tell which coordinates are adjusted.
    rank = nearest.sum(dim=0).long().expand_as(offset).clone()
    for i in range(num_axes):
        rank[i] += (offset[i] <= offset[:i]).sum(dim=0) + (offset[i] < offset[i + 1 :]).sum(dim=0)
    turn = (rank < 0).long() - (rank > num_dims).long()
    coordinate = (nearest.long() + turn)[:num_dims] * num_axes
    base = (coordinate * strides[:, None]).sum(dim=0)
    return offset / num_axes - turn, rank + turn * num_axes, base


def _link(keys: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
    """Finds the neighbours of the vertices with (V,) ascending keys."""
    own = torch.arange(len(keys) + 1, device=keys.device)
    sides = []
    for sign in (-1, 1):
        wanted = keys + sign * steps[:, None]
        slot = torch.searchsorted(keys, wanted).clamp(max=len(keys) - 1)
        found = torch.where(keys[slot] == wanted, slot, len(keys))
        sides.append(F.pad(found, (0, 1), value=len(keys)))
    return torch.stack([own.expand(len(steps), -1), *sides], dim=2).int()


def _normalised(lattice: TorchLattice, order: torch.Tensor) -> TorchLattice:
    """Returns the lattice with weights scaled so that the filter is symmetrically normalised."""
    num_points, num_corners = lattice.weights.shape
    scale = 1 / (1 + 2.0 ** (1 - num_corners))
    ones = torch.ones(num_points, 1, device=lattice.weights.device)
    # Splat and slice both apply the factor, so it includes the square root of the scale.
    factor = (scale / (scale * lattice.filter(ones) + 1e-20)).sqrt()
    weights = lattice.weights * factor
    return TorchLattice(
        **vars(lattice) | {"weights": weights, "point_weights": weights.flatten()[order]}
    )


def _sum_rows(rows: torch.Tensor, values: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Returns (M, C) weighted sums of the rows of (V, C) values that (M, K) rows name."""
    return F.embedding_bag(rows, values, mode="sum", per_sample_weights=weights)
