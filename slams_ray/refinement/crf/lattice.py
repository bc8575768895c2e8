"""Compiled permutohedral lattice: Gaussian filtering of scattered points in linear time.

Source: Adams, Baek, Davis, "Fast High-Dimensional Filtering Using the Permutohedral Lattice"
(Eurographics 2010). A simplex of d + 1 lattice vertices encloses each point in d dimensions. The
filter spreads the value of a point over these vertices by barycentric weights (splat), blurs along
the d + 1 directions of the lattice with [1/2, 1, 1/2], and reads the result back by the same
weights (slice). As in pydensecrf, only vertices that receive a splat exist, and the result is
scaled by 1 / (1 + 2^-d).
"""

from dataclasses import dataclass

import numpy as np

from slams_ray.refinement.crf.compilation import compiled
from slams_ray.refinement.crf.lattice_points import axis_scale, key_steps, key_strides

BLOCK = 256
"""Points placed at a time: every loop over them vectorises, and their state fits into L1 cache."""
ROOM = 4
"""Slots of the hash table per key. Few collisions mean few mispredicted branches."""
FIRST_ROOM = 1 << 14
HASH_FACTOR = 0x9E3779B97F4A7C15


@dataclass(frozen=True, kw_only=True, eq=False)
class Lattice:
    """Lattice of V vertices around N points in d dimensions.

    Attributes:
        vertices: (N, d + 1) uint32, the vertices of each point's simplex. They are unsigned,
            because numba checks signed indices for negative values.
        weights: (N, d + 1) float32, barycentric weights times a factor per point. The factor turns
            splat, blur and slice into the symmetrically normalised filter D^-1/2 K D^-1/2.
        neighbours: (d + 1, V, 2) uint32, the vertices on either side in each direction; V where
            there is none.
    """

    vertices: np.ndarray
    weights: np.ndarray
    neighbours: np.ndarray


def build_lattice(features: np.ndarray) -> Lattice:
    """Builds the lattice of (d, N) float32 features, in standard deviations of the kernel."""
    num_dims, num_points = features.shape
    scaled = features * axis_scale(num_dims)[:, None]
    strides = key_strides(np.ptp(scaled, axis=1))
    vertices = np.empty((num_points, num_dims + 1), np.uint32)
    weights = np.empty((num_points, num_dims + 1), np.float32)
    steps = key_steps(strides)
    keys, table = _register(scaled, strides, steps, vertices, weights)
    neighbours = _link(keys, table, steps)
    _normalise(weights, vertices, neighbours)
    return Lattice(vertices=vertices, weights=weights, neighbours=neighbours)


@compiled
def _register(
    scaled: np.ndarray,
    strides: np.ndarray,
    steps: np.ndarray,
    vertices: np.ndarray,
    weights: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Numbers the vertices in the order of their first point. Fills vertices and weights.

    Returns:
        keys (V,) int64 and the hash table over them: vertex or -1, int32, open addressing. Keys
        are not in the table, so the table is small, and neighbouring pixels find keys in cache.
    """
    num_dims, num_points = scaled.shape
    offset = np.empty((num_dims + 1, BLOCK), np.float32)
    rank = np.empty((num_dims + 1, BLOCK), np.int32)
    base = np.empty(BLOCK, np.int64)
    ordered = np.empty(num_dims + 1, np.float32)
    hop = np.empty(num_dims + 1, np.int64)
    table = np.full(ROOM * FIRST_ROOM, -1, np.int32)
    keys = np.empty(FIRST_ROOM, np.int64)
    count = 0
    for start in range(0, num_points, BLOCK):
        stop = min(start + BLOCK, num_points)
        _enclose(scaled, start, stop, strides, offset, rank, base)
        for b in range(stop - start):
            for j in range(num_dims + 1):
                ordered[rank[j, b]] = offset[j, b]
                hop[rank[j, b]] = steps[j]
            if count + num_dims + 1 > keys.size:
                keys, table = _grown(keys, table)
            # Vertex k + 1 follows vertex k in the direction in which the point has rank d - k.
            key = base[b]
            above = ordered[0] - np.float32(1)
            for k in range(num_dims + 1):
                slot = _slot(table, keys, key)
                vertex = table[slot]
                if vertex < 0:
                    vertex = count
                    table[slot] = vertex
                    keys[vertex] = key
                    count += 1
                vertices[start + b, k] = vertex
                weights[start + b, k] = ordered[num_dims - k] - above
                above = ordered[num_dims - k]
                key += hop[num_dims - k]
    return keys[:count], table


@compiled
def _enclose(
    scaled: np.ndarray,
    start: int,
    stop: int,
    strides: np.ndarray,
    offset: np.ndarray,
    rank: np.ndarray,
    base: np.ndarray,
) -> None:
    """Finds the nearest vertex of remainder 0 of the points from start to stop, at most `BLOCK`.

    Operations and ties follow pydensecrf's order in float32, so that the same points fall into the
    same simplices.

    Args:
        scaled: (d, N) float32 features in units of the lattice.
        strides: (d,) int64, turn coordinates into a key.
        offset: (d + 1, BLOCK) float32, filled with (point - vertex) / (d + 1).
        rank: (d + 1, BLOCK) int32, filled with each coordinate's rank by descending offset.
        base: (BLOCK,) int64, filled with the vertex's key.
    """
    num_dims = len(scaled)
    size = stop - start
    num_axes = num_dims + 1
    step = np.float32(num_axes)
    total = np.zeros(size, np.float32)
    # Project onto the hyperplane of coordinates that sum to zero.
    for j in range(num_dims, 0, -1):
        for b in range(size):
            offset[j, b] = total[b] - np.float32(j) * scaled[j - 1, start + b]
            total[b] += scaled[j - 1, start + b]
    offset[0, :size] = total
    total[:] = 0
    base[:] = 0
    for j in range(num_axes):
        stride = strides[j] * num_axes if j < num_dims else 0
        for b in range(size):
            nearest = np.rint(offset[j, b] / step)
            total[b] += nearest
            base[b] += np.int64(nearest) * stride
            offset[j, b] -= nearest * step
    # The rounded coordinates may not sum to zero. Ranks tell which coordinates are adjusted.
    for i in range(num_axes):
        for b in range(size):
            rank[i, b] = np.int32(total[b])
        for j in range(i):
            for b in range(size):
                rank[i, b] += np.int32(offset[i, b] <= offset[j, b])
        for j in range(i + 1, num_axes):
            for b in range(size):
                rank[i, b] += np.int32(offset[i, b] < offset[j, b])
    for j in range(num_axes):
        stride = strides[j] * num_axes if j < num_dims else 0
        for b in range(size):
            turn = np.int32(rank[j, b] < 0) - np.int32(rank[j, b] > num_dims)
            rank[j, b] += turn * num_axes
            base[b] += np.int64(turn) * stride
            offset[j, b] = offset[j, b] / step - np.float32(turn)


@compiled
def _slot(table: np.ndarray, keys: np.ndarray, key: int) -> np.uint64:
    """Returns the slot of a key, or the free slot to put it into."""
    mask = np.uint64(table.size - 1)
    mixed = np.uint64(key) * np.uint64(HASH_FACTOR)
    slot = (mixed ^ (mixed >> np.uint64(32))) & mask
    vertex = table[slot]
    while vertex >= 0 and keys[np.uint32(vertex)] != key:
        slot = (slot + np.uint64(1)) & mask
        vertex = table[slot]
    return slot


@compiled
def _grown(keys: np.ndarray, table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns keys and table with twice the room."""
    larger = np.empty(2 * keys.size, np.int64)
    larger[: keys.size] = keys
    table = np.full(2 * table.size, -1, np.int32)
    for v in range(keys.size):
        table[_slot(table, larger, keys[v])] = v
    return larger, table


@compiled
def _link(keys: np.ndarray, table: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Finds the neighbours of each vertex. One search serves both vertices of a pair."""
    neighbours = np.full((steps.size, keys.size, 2), keys.size, np.uint32)
    for j in range(steps.size):
        for v in range(keys.size):
            found = table[_slot(table, keys, keys[v] + steps[j])]
            if found >= 0:
                neighbours[j, v, 1] = found
                neighbours[j, found, 0] = v
    return neighbours


@compiled
def _normalise(weights: np.ndarray, vertices: np.ndarray, neighbours: np.ndarray) -> None:
    """Scales the weights in place, so that the filter is symmetrically normalised."""
    num_points, num_corners = weights.shape
    values = np.zeros(neighbours.shape[1] + 1, np.float32)
    for n in range(num_points):
        for k in range(num_corners):
            values[vertices[n, k]] += weights[n, k]
    blur(values, np.zeros_like(values), neighbours, (0,), 1)
    scale = np.float32(1 / (1 + 2.0 ** (1 - num_corners)))
    for n in range(num_points):
        total = np.float32(0)
        for k in range(num_corners):
            total += weights[n, k] * values[vertices[n, k]]
        # Splat and slice both apply the factor, so it includes the square root of the scale.
        factor = np.sqrt(scale / (scale * total + np.float32(1e-20)))
        for k in range(num_corners):
            weights[n, k] *= factor


@compiled
def blur(
    values: np.ndarray,
    spare: np.ndarray,
    neighbours: np.ndarray,
    unrolled: tuple[int, ...],
    num_channels: int,
) -> None:
    """Blurs all channels along every direction in turn, in place.

    Args:
        values: ((V + 1) * C,) float32, channels innermost. The last vertex represents missing
            neighbours and is zero.
        spare: array of the same size for intermediate values, zero in its last vertex.
        unrolled: tuple of C numbers, or an empty one. The compiler knows its length and unrolls the
            loop over channels, which is 2 to 3 times faster for few channels.
        num_channels: C, used where unrolled is empty.
    """
    channels = len(unrolled) if len(unrolled) else num_channels
    num_axes, num_vertices, _ = neighbours.shape
    half = np.float32(0.5)
    source, target = values, spare
    for j in range(num_axes):
        for v in range(num_vertices):
            own = np.uint64(v) * np.uint64(channels)
            below = np.uint64(neighbours[j, v, 0]) * np.uint64(channels)
            above = np.uint64(neighbours[j, v, 1]) * np.uint64(channels)
            for channel in range(channels):
                c = np.uint64(channel)
                target[own + c] = source[own + c] + half * (source[below + c] + source[above + c])
        source, target = target, source
    if num_axes % 2:
        values[:] = spare
