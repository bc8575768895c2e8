"""Random walk of activations over the grid of one image, compiled, without torch.

Source: IRN, Ahn et al. 2019, section 5: cells that no edge separates exchange activation, so that
an object's maps fill it and stop at its border.
"""

from collections.abc import Sequence

import numpy as np

from slams_ray.data.stored_maps import STORED_LEVELS
from slams_ray.refinement.crf.compilation import compiled
from slams_ray.refinement.walk.chebyshev import powers
from slams_ray.refinement.walk.paths import pairs_within

RADIUS = 5
"""Of the pairs that exchange activation (IRN); 34 offsets."""
TOLERANCE = 1e-5
REFERENCE_SIDE = 120
"""Cells along the longer side of the grid for which numbers of steps are meant: 480 px."""


def scaled_steps(num_steps: int, size: tuple[int, int]) -> int:
    """Steps that carry activation as far, as a share of the grid, as `num_steps` do on 120 cells.

    A walk of t steps reaches about sqrt(t) cells, so t grows with the square of the longer side. A
    grid of 24 cells needs 10 steps in place of 256. At least 1.

    Args:
        size: (h, w) of the grid.
    """
    return max(1, round(num_steps * (max(size) / REFERENCE_SIDE) ** 2))


class Walk:
    """The walk on one image: built once, it carries any maps for any numbers of steps.

    The affinity of two cells nearer than the radius is (1 - largest edge on the path between
    them)^beta, of a cell and itself 1. T is the matrix A of affinities, each column divided by its
    sum. Paths stay inside the image.

    Args:
        edge: (h, w) float32 in [0, 1], the probability of an edge in each cell, at stride 4.
        beta: contrast of the affinities; 10 in IRN.
        radius: in cells.
    """

    def __init__(self, edge: np.ndarray, beta: float, radius: int = RADIUS) -> None:
        check_edge(edge.shape, 2)
        self.edge = np.array(edge, np.float32, order="C")
        pairs = pairs_within(radius, (edge.shape[0], edge.shape[1]))
        self._offsets = np.array([p.offset for p in pairs], np.int64).reshape(-1, 2)
        cells = np.array([cell for p in pairs for cell in p.path], np.int64).reshape(-1, 2)
        ends = np.cumsum([len(p.path) for p in pairs], dtype=np.int64)
        self._affinity = (1 - _path_maxima(self.edge, self._offsets, cells, ends)) ** np.float32(
            beta
        )
        sums = np.ones(self.edge.shape)
        for index, pair in enumerate(pairs):
            affinity = self._affinity[pair.rows, index, pair.columns]
            sums[pair.sources] += affinity
            sums[pair.targets] += affinity
        self._column_sums = sums.astype(np.float32)

    def propagate(
        self,
        maps: np.ndarray,
        steps: Sequence[int],
        tolerance: float = TOLERANCE,
        erase_edges: bool = False,
    ) -> np.ndarray:
        """Maps after each number of steps, brought back to [0, 1].

        Every map walks, and is divided by the one maximum over all maps of the image, so that their
        order stays. Maps that are 0 everywhere stay so.

        Args:
            maps: (C, h, w) of the present classes, uint8 of 255 levels or float in [0, 1]. C may
                be 0.
            steps: T numbers of steps; all share one recurrence.
            tolerance: as in `powers`.
            erase_edges: whether maps are multiplied by 1 - edge first (IRN).

        Returns:
            (T, C, h, w) float32 in [0, 1].
        """
        check_maps(maps.shape, self.edge.shape)
        unit = np.float32(1 / STORED_LEVELS if maps.dtype == np.uint8 else 1)
        kept = 1 - self.edge if erase_edges else np.float32(1)
        walked = self.powers(maps * unit * kept, steps, tolerance)
        peak = walked.max(axis=(1, 2, 3), keepdims=True, initial=0)
        return walked / np.where(peak > 0, peak, 1)

    def powers(
        self, maps: np.ndarray, steps: Sequence[int], tolerance: float = TOLERANCE
    ) -> np.ndarray:
        """maps T^t for each t: every cell becomes a weighted mean of cells.

        Args:
            maps: (C, h, w) float, not negative.
            tolerance: bound of the error, rounding aside, as a share of the largest value of maps.

        Returns:
            (T, C, h, w) float32.
        """
        start = np.array(maps, np.float32, order="C")
        if not len(steps) or not start.size:
            return np.zeros((len(steps), *start.shape), np.float32)
        tail = series_tail(tolerance, self.edge.size, float(self._column_sums.max()))
        series = powers(self._multiply, start, steps, tail)
        walked = np.stack(series)
        return np.maximum(walked, 0, out=walked)

    def _multiply(self, maps: np.ndarray) -> np.ndarray:
        return maps + _gains(maps, self._affinity, self._offsets) / self._column_sums


def series_tail(tolerance: float, num_cells: int, largest_sum: float) -> float:
    """Bound of the series' tail that keeps every cell's error below tolerance * largest value.

    The series is bounded in the norm sqrt(sum_j d_j x_j^2), where column sums d are at least 1: the
    norm of an image is at most sqrt(n d_max) times its largest value, and no cell exceeds it.
    """
    return tolerance / float(np.sqrt(num_cells * largest_sum))


def check_edge(shape: Sequence[int], num_dims: int) -> None:
    """Raises ValueError unless the edges have the number of axes, none of them empty."""
    if len(shape) != num_dims or 0 in shape:
        raise ValueError(f"edges have the shape {tuple(shape)}, expected {num_dims} axes of cells")


def check_maps(shape: Sequence[int], size: Sequence[int]) -> None:
    """Raises ValueError unless the maps have the size of the edges."""
    if len(shape) != 3 or tuple(shape[-2:]) != tuple(size):
        raise ValueError(f"maps have the shape {tuple(shape)}, but edges have {tuple(size)}")


@compiled
def _path_maxima(
    edge: np.ndarray, offsets: np.ndarray, cells: np.ndarray, ends: np.ndarray
) -> np.ndarray:
    """(h, P, w): the largest edge between each cell and that at each offset; 1 outside the image.

    Args:
        offsets: (P, 2); cells: paths one after another; ends: (P,) where each path ends in cells.
    """
    height, width = edge.shape
    maxima = np.ones((height, len(offsets), width), np.float32)
    for y in range(height):
        first = 0
        for p in range(len(offsets)):
            dy, dx = offsets[p]
            start, stop = max(0, -dx), width - max(0, dx)
            if y + dy < height:
                row = maxima[y, p, start:stop]
                row[:] = 0
                for n in range(first, ends[p]):
                    on_path = edge[y + cells[n, 0], start + cells[n, 1] : stop + cells[n, 1]]
                    for x in range(len(row)):
                        row[x] = max(row[x], on_path[x])
            first = ends[p]
    return maxima


@compiled
def _gains(maps: np.ndarray, affinity: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """(C, h, w): sum over the neighbours j of each cell i of A_ij (x_j - x_i).

    A difference has less to round than a weighted sum, and 256 steps add their rounding up.
    """
    height, width = affinity.shape[0], affinity.shape[2]
    gains = np.zeros_like(maps)
    flow = np.empty(width, np.float32)
    for y in range(height):
        for c in range(len(maps)):
            for p in range(len(offsets)):
                dy, dx = offsets[p]
                if y + dy >= height:
                    continue
                start, stop = max(0, -dx), width - max(0, dx)
                weights = affinity[y, p, start:stop]
                near, far = maps[c, y, start:stop], maps[c, y + dy, start + dx : stop + dx]
                to_near = gains[c, y, start:stop]
                to_far = gains[c, y + dy, start + dx : stop + dx]
                for x in range(len(weights)):
                    flow[x] = weights[x] * (far[x] - near[x])
                    to_near[x] += flow[x]
                for x in range(len(weights)):
                    to_far[x] -= flow[x]
    return gains


def compile_ahead() -> None:
    """Leaves the compiled code in numba's cache, so that no worker waits for it."""
    Walk(np.zeros((2, 2), np.float32), 1.0).propagate(np.zeros((1, 2, 2), np.uint8), [1])
