"""The random walk against dense squaring and against sparse products, and how well they agree."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch

from slams_ray.benchmarks.harness.measure import Row, compare, row
from slams_ray.refinement.pixel_adaptive import refine_by_colour
from slams_ray.refinement.walk.paths import pairs_within
from slams_ray.refinement.walk.propagation import RADIUS, Walk

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

Work = Callable[[], object]
BETA, NUM_STEPS = 10.0, 256
SQUARINGS = 8
DENSE_SIZE, PHOTOGRAPH_SIZE = (48, 63), (94, 125)
"""Grids: one whose dense matrix still fits, and that of a 375 x 500 photograph."""
SECONDS_AN_IMAGE = 0.5
TOLERANCE = 1e-4


def walk_rows(num_classes: int, rounds: int) -> list[Row]:
    """Build and walk of one image, with its agreement and its CPU seconds."""
    torch.set_num_threads(1)
    return [
        _dense_row(num_classes, rounds),
        _sparse_row(num_classes, rounds),
        _agreement_row(num_classes),
        _seconds_row("walk of 256 steps, lattice included", _walk(PHOTOGRAPH_SIZE, num_classes)),
        _seconds_row("pixel-adaptive refinement, 10 rounds", _adapt(num_classes)),
    ]


def _dense_row(num_classes: int, rounds: int) -> Row:
    height, width = DENSE_SIZE
    edge, maps = _image(DENSE_SIZE, num_classes)
    growth = (np.prod(PHOTOGRAPH_SIZE) / np.prod(DENSE_SIZE)) ** 3

    def squared() -> np.ndarray:
        power = _dense(edge)
        for _ in range(SQUARINGS):
            power = power @ power
        return maps.reshape(num_classes, -1) @ power

    return compare(
        f"walk of 256 steps, {num_classes} classes, grid {height} x {width}",
        lambda: Walk(edge, BETA).powers(maps, [NUM_STEPS]),
        f"dense squaring (on 94 x 125 it takes {growth:.0f} times as long)",
        squared,
        goal=100,
        rounds=rounds,
    )


def _sparse_row(num_classes: int, rounds: int) -> Row:
    height, width = PHOTOGRAPH_SIZE
    edge, maps = _image(PHOTOGRAPH_SIZE, num_classes)
    transition = _sparse(edge, np.float32)
    walk = Walk(edge, BETA)

    def products() -> np.ndarray:
        columns = np.ascontiguousarray(maps.reshape(num_classes, -1).T)
        for _ in range(NUM_STEPS):
            columns = transition @ columns
        return columns

    return compare(
        f"Chebyshev series, {num_classes} classes, grid {height} x {width}",
        lambda: walk.powers(maps, [NUM_STEPS]),
        "256 sparse products",
        products,
        goal=3,
        rounds=rounds,
    )


def _agreement_row(num_classes: int) -> Row:
    """Tolerated over found largest difference from products in float64."""
    edge, maps = _image(PHOTOGRAPH_SIZE, num_classes)
    transition = _sparse(edge, np.float64)
    columns = maps.reshape(num_classes, -1).T.astype(np.float64)
    for _ in range(NUM_STEPS):
        columns = transition @ columns
    found = Walk(edge, BETA).powers(maps, [NUM_STEPS])[0].reshape(num_classes, -1)
    error = float(np.abs(found - columns.T).max())
    return row(
        f"largest difference of the walk, {error:.0e}",
        f"{TOLERANCE:.0e} from float64 products",
        [TOLERANCE / error],
        goal=1,
    )


def _seconds_row(what: str, work: Work) -> Row:
    work()
    start = time.process_time()
    for _ in range(5):
        work()
    seconds = (time.process_time() - start) / 5
    return row(
        f"{what}, {seconds:.3f} CPU s an image of 375 x 500",
        f"{SECONDS_AN_IMAGE} s",
        [SECONDS_AN_IMAGE / seconds],
        goal=1,
    )


def _walk(size: tuple[int, int], num_classes: int) -> Work:
    edge, maps = _image(size, num_classes)
    return lambda: Walk(edge, BETA).propagate(maps, [NUM_STEPS])


def _adapt(num_classes: int) -> Work:
    _, maps = _image(PHOTOGRAPH_SIZE, num_classes)
    image = torch.rand((1, 3, *PHOTOGRAPH_SIZE), generator=torch.Generator().manual_seed(0))
    return lambda: refine_by_colour(image, torch.from_numpy(maps)[None])


def _image(size: tuple[int, int], num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Edges, few of them strong, and maps."""
    rng = np.random.default_rng(0)
    edge = rng.random(size, np.float32) ** 3
    return edge, rng.random((num_classes, *size), np.float32)


def _entries(edge: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row, column and affinity of every pair of cells, each pair once."""
    size = (edge.shape[0], edge.shape[1])
    cells = np.arange(edge.size).reshape(size)
    parts = []
    for pairs in pairs_within(RADIUS, size):
        largest = np.max([edge[pairs.region(cell)] for cell in pairs.path], axis=0)
        affinity = (1 - largest) ** np.float32(BETA)
        parts.append((cells[pairs.sources].ravel(), cells[pairs.targets].ravel(), affinity.ravel()))
    rows, columns, values = (np.concatenate(part) for part in zip(*parts, strict=True))
    return rows, columns, values


def _dense(edge: np.ndarray) -> np.ndarray:
    """(n, n) transition matrix, columns of sum 1."""
    rows, columns, values = _entries(edge)
    affinity = np.eye(edge.size, dtype=np.float32)
    affinity[rows, columns] = affinity[columns, rows] = values
    return affinity / affinity.sum(axis=0)


def _sparse(edge: np.ndarray, dtype: type) -> "csr_matrix":
    """Transposed transition matrix, to be multiplied by columns of maps."""
    from scipy.sparse import coo_matrix, diags

    rows, columns, values = _entries(edge)
    cells = np.arange(edge.size)
    affinity = coo_matrix(
        (
            np.concatenate([values, values, np.ones(edge.size)]).astype(dtype),
            (
                np.concatenate([rows, columns, cells]),
                np.concatenate([columns, rows, cells]),
            ),
        )
    ).tocsr()
    sums = np.asarray(affinity.sum(axis=0)).ravel()
    return (diags((1 / sums).astype(dtype)) @ affinity).tocsr()
