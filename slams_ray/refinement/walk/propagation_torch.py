"""Random walk of activations in torch, for GPUs: images of one size in one batch.

The method is that of `propagation`; products are shifted multiply-adds over the whole batch.
"""

from collections.abc import Sequence

import torch

from slams_ray.data.stored_maps import STORED_LEVELS
from slams_ray.refinement.walk.chebyshev import powers
from slams_ray.refinement.walk.path_maxima import path_maxima
from slams_ray.refinement.walk.paths import pairs_within
from slams_ray.refinement.walk.propagation import (
    RADIUS,
    TOLERANCE,
    check_edge,
    check_maps,
    series_tail,
)


class TorchWalk:
    """The walk on images of one size; arguments and results as `Walk`, one axis of images more.

    Args:
        edges: (B, h, w) float in [0, 1]; where they are is where it computes.
    """

    def __init__(self, edges: torch.Tensor, beta: float, radius: int = RADIUS) -> None:
        check_edge(edges.shape, 3)
        self.edges = edges.detach().float()
        self._pairs = pairs_within(radius, (edges.shape[1], edges.shape[2]))
        self._affinity = [
            (1 - path_maxima(self.edges, pairs)).pow(beta)[:, None] for pairs in self._pairs
        ]
        self._column_sums = torch.ones_like(self.edges)[:, None]
        for pairs, affinity in zip(self._pairs, self._affinity, strict=True):
            self._column_sums[pairs.sources] += affinity
            self._column_sums[pairs.targets] += affinity

    @torch.no_grad()
    def propagate(
        self, maps: torch.Tensor, steps: Sequence[int], tolerance: float = TOLERANCE
    ) -> torch.Tensor:
        """(T, B, C, h, w) float32 in [0, 1], of (B, C, h, w) maps.

        Images with fewer classes than others have maps of 0 in their place. Each image is divided
        by its own maximum.
        """
        check_maps(maps.shape[1:], self.edges.shape[1:])
        unit = 1 / STORED_LEVELS if maps.dtype == torch.uint8 else 1.0
        walked = self.powers(maps * unit * (1 - self.edges[:, None]), steps, tolerance)
        if not walked.numel():
            return walked
        peak = walked.amax(dim=(2, 3, 4), keepdim=True)
        return walked / torch.where(peak > 0, peak, 1)

    @torch.no_grad()
    def powers(
        self, maps: torch.Tensor, steps: Sequence[int], tolerance: float = TOLERANCE
    ) -> torch.Tensor:
        """(T, B, C, h, w) float32: maps T^t for each t, of (B, C, h, w) maps >= 0."""
        start = maps.float()
        if not len(steps) or not start.numel():
            return start.new_zeros((len(steps), *start.shape))
        num_cells = self.edges[0].numel()
        tail = series_tail(tolerance, num_cells, float(self._column_sums.amax()))
        return torch.stack(powers(self._multiply, start, steps, tail)).clamp_(min=0)

    def _multiply(self, maps: torch.Tensor) -> torch.Tensor:
        gains = torch.zeros_like(maps)
        for pairs, affinity in zip(self._pairs, self._affinity, strict=True):
            flow = (maps[pairs.targets] - maps[pairs.sources]).mul_(affinity)
            gains[pairs.sources] += flow
            gains[pairs.targets] -= flow
        return maps + gains / self._column_sums
