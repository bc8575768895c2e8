import numpy as np
import pytest

from slams_ray.refinement.walk.paths import half_plane_offsets, pairs_within, path_cells


@pytest.mark.parametrize(("radius", "count"), [(1, 0), (5, 34), (10, 152)])
def test_each_offset_or_its_opposite_is_there_once(radius: int, count: int) -> None:
    offsets = half_plane_offsets(radius)
    assert len(offsets) == count
    both = set(offsets) | {(-dy, -dx) for dy, dx in offsets}
    reach = range(-radius, radius + 1)
    inside = {(y, x) for y in reach for x in reach if 0 < y * y + x * x < radius * radius}
    assert len(both) == 2 * count
    assert both == inside


@pytest.mark.parametrize(
    ("offset", "cells"),
    [
        ((0, 3), {(0, 0), (0, 1), (0, 2), (0, 3)}),
        ((2, 1), {(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1)}),
        ((3, -3), {(k, -k) for k in range(4)} | {(k, -k - 1) for k in range(3)}
         | {(k + 1, -k) for k in range(3)}),
        ((4, 2), {(y, x) for y in range(5) for x in range(3) if abs(y - 2 * x) <= 2}),
    ],
)  # fmt: skip
def test_a_path_is_the_cells_nearer_than_one(
    offset: tuple[int, int], cells: set[tuple[int, int]]
) -> None:
    assert set(path_cells(offset)) == cells


def distance_to_segment(cell: tuple[int, int], end: tuple[int, int]) -> float:
    point, direction = np.array(cell, float), np.array(end, float)
    share = np.clip(point @ direction / (direction @ direction), 0, 1)
    return float(np.linalg.norm(point - share * direction))


def test_within_the_box_the_distance_is_that_to_the_segment() -> None:
    for offset in half_plane_offsets(6):
        dy, dx = offset
        box = {
            (y, x)
            for y in range(min(0, dy), max(0, dy) + 1)
            for x in range(min(0, dx), max(0, dx) + 1)
        }
        near = {cell for cell in box if distance_to_segment(cell, offset) < 1 - 1e-9}
        assert set(path_cells(offset)) == near


@pytest.mark.parametrize("size", [(1, 1), (2, 7), (6, 3), (9, 9)])
def test_pairs_are_all_with_both_ends_in_the_grid(size: tuple[int, int]) -> None:
    index = np.arange(size[0] * size[1]).reshape(size)
    found = []
    for pairs in pairs_within(4, size):
        ends = zip(index[pairs.sources].flat, index[pairs.targets].flat, strict=True)
        found += [frozenset(map(int, end)) for end in ends]
    places = np.argwhere(index >= 0)
    near = {
        frozenset((i, j))
        for i in range(len(places))
        for j in range(i)
        if ((places[i] - places[j]) ** 2).sum() < 16
    }
    assert len(found) == len(near)
    assert set(found) == near
