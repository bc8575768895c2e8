"""The compiled walk does what dense matrices by naive loops do."""

import numpy as np
import pytest

from slams_ray.refinement.walk import propagation
from slams_ray.refinement.walk.paths import path_cells
from slams_ray.refinement.walk.propagation import Walk, scaled_steps

BETA = 10.0


def random_edge(*size: int, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).random(size) ** 3).astype(np.float32)


def random_maps(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).random(shape).astype(np.float32)


def dense_transition(edge: np.ndarray, beta: float, radius: int) -> np.ndarray:
    """(N, N) T by loops over all pairs of cells."""
    width = edge.shape[1]
    affinity = np.eye(edge.size)
    for i in range(edge.size):
        for j in range(i):
            upper, lower = divmod(j, width), divmod(i, width)
            dy, dx = lower[0] - upper[0], lower[1] - upper[1]
            if dy * dy + dx * dx < radius * radius:
                path = [edge[upper[0] + y, upper[1] + x] for y, x in path_cells((dy, dx))]
                affinity[i, j] = affinity[j, i] = (1 - float(max(path))) ** beta
    return affinity / affinity.sum(axis=0)


@pytest.mark.parametrize(("size", "radius"), [((8, 8), 5), ((3, 11), 5), ((7, 2), 3), ((1, 4), 5)])
def test_powers_are_those_of_the_dense_matrix(size: tuple[int, int], radius: int) -> None:
    edge, maps = random_edge(*size), random_maps(3, *size)
    transition = dense_transition(edge, BETA, radius)
    steps = (0, 1, 2, 9, 64, 256)
    found = Walk(edge, BETA, radius).powers(maps, steps)
    for num_steps, values in zip(steps, found, strict=True):
        power = np.linalg.matrix_power(transition, num_steps)
        expected = (maps.reshape(3, -1) @ power).reshape(maps.shape)
        np.testing.assert_allclose(values, expected, atol=2e-5)


@pytest.mark.parametrize("erase_edges", [False, True])
def test_maps_walk_and_are_divided_by_one_maximum(erase_edges: bool) -> None:
    edge, maps = random_edge(6, 7), random_maps(2, 6, 7)
    maps[1] *= 0.3
    transition = np.linalg.matrix_power(dense_transition(edge, BETA, 5), 4)
    start = maps * (1 - edge) if erase_edges else maps
    expected = (start.reshape(2, -1) @ transition).reshape(maps.shape)
    found = Walk(edge, BETA).propagate(maps, [4], erase_edges=erase_edges)
    assert found.shape == (1, 2, 6, 7)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[0], expected / expected.max(), atol=1e-4)


def test_stored_levels_are_maps_of_255() -> None:
    edge = random_edge(6, 7)
    stored = np.random.default_rng(2).integers(0, 256, (2, 6, 7)).astype(np.uint8)
    found = Walk(edge, BETA).propagate(stored, [8])
    expected = Walk(edge, BETA).propagate(stored.astype(np.float32) / 255, [8])
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_constant_map_stays() -> None:
    constant = np.full((1, 9, 12), 0.7, np.float32)
    found = Walk(random_edge(9, 12), BETA).powers(constant, [1, 50, 400])
    np.testing.assert_allclose(found, 0.7, atol=1e-5)


def test_no_value_leaves_the_range_of_the_map() -> None:
    maps = random_maps(2, 9, 12)
    found = Walk(random_edge(9, 12), BETA).powers(maps, [1, 3, 30, 300])
    low, high = maps.min(axis=(1, 2)), maps.max(axis=(1, 2))
    assert (found.min(axis=(2, 3)) >= low - 1e-5).all()
    assert (found.max(axis=(2, 3)) <= high + 1e-5).all()
    spread = found.max(axis=(2, 3)) - found.min(axis=(2, 3))
    assert (np.diff(spread, axis=0) < 0).all()


def test_without_edges_the_walk_blurs() -> None:
    maps = np.zeros((1, 9, 9), np.float32)
    maps[0, 4, 4] = 1
    found = Walk(np.zeros((9, 9), np.float32), BETA).propagate(maps, [1, 100])
    assert found[0, 0, 4, 8] > 0
    assert found[1, 0].min() > 0.5


def test_edges_everywhere_hold_the_walk() -> None:
    maps, walk = random_maps(2, 5, 6), Walk(np.ones((5, 6), np.float32), BETA)
    np.testing.assert_allclose(walk.powers(maps, [64])[0], maps, atol=1e-5)
    np.testing.assert_allclose(walk.propagate(maps, [64])[0], maps / maps.max(), atol=1e-5)
    assert (walk.propagate(maps, [64], erase_edges=True) == 0).all()


def test_a_closed_wall_stops_the_walk() -> None:
    edge = np.zeros((12, 14), np.float32)
    edge[2:9, [3, 10]] = 1
    edge[[2, 8], 3:11] = 1
    maps = np.zeros((1, 12, 14), np.float32)
    maps[0, 5, 6] = 1
    found = Walk(edge, BETA).powers(maps, [500])[0, 0]
    inside = np.zeros(edge.shape, bool)
    inside[3:8, 4:10] = True
    assert found[inside].min() > 0.02
    assert (found[~inside] == 0).all()


@pytest.mark.parametrize("axis", [-1, -2])
def test_mirroring_edges_and_maps_mirrors_the_walk(axis: int) -> None:
    edge, maps = random_edge(8, 11), random_maps(2, 8, 11)
    expected = np.flip(Walk(edge, BETA).propagate(maps, [40]), axis)
    mirrored = [np.ascontiguousarray(np.flip(array, axis)) for array in (edge, maps)]
    found = Walk(mirrored[0], BETA).propagate(mirrored[1], [40])
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_an_image_without_a_class_gives_no_map() -> None:
    found = Walk(random_edge(4, 5), BETA).propagate(np.zeros((0, 4, 5), np.uint8), [2, 4])
    assert found.shape == (2, 0, 4, 5)


def test_a_single_cell_keeps_its_map() -> None:
    found = Walk(np.full((1, 1), 0.2, np.float32), BETA).propagate(
        np.full((2, 1, 1), 0.5, np.float32), [256]
    )
    np.testing.assert_allclose(found, 1)


def test_maps_of_another_size_raise() -> None:
    with pytest.raises(ValueError, match=r"maps.*\(4, 5\)"):
        Walk(random_edge(4, 5), BETA).propagate(random_maps(1, 5, 4), [1])


def test_edges_of_no_cell_raise() -> None:
    with pytest.raises(ValueError, match="edges have the shape"):
        Walk(np.zeros((0, 4), np.float32), BETA)


@pytest.mark.parametrize(
    ("size", "expected"), [((90, 120), 256), ((120, 90), 256), ((24, 24), 10), ((1, 1), 1)]
)
def test_steps_grow_with_the_square_of_the_grid(size: tuple[int, int], expected: int) -> None:
    assert scaled_steps(256, size) == expected


def test_compiling_ahead_leaves_nothing_to_compile() -> None:
    propagation.compile_ahead()
    kernels = (propagation._path_maxima, propagation._gains)
    before = [kernel.signatures for kernel in kernels]
    maps = np.zeros((7, 6, 3), np.uint8).transpose(1, 2, 0)
    maps.flags.writeable = False
    edge = random_edge(3, 7).astype(np.float64)
    edge.flags.writeable = False
    Walk(edge, BETA).propagate(maps, [3])
    assert [kernel.signatures for kernel in kernels] == before
