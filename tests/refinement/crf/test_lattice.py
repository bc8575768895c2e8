"""The lattice filters like a Gaussian, and places points as the method says."""

import numpy as np
import pytest

from slams_ray.errors import ConfigError
from slams_ray.refinement.crf.backends import make_crf
from slams_ray.refinement.crf.kernels import CrfKernels
from slams_ray.refinement.crf.lattice import Lattice, blur, build_lattice


def filtered(lattice: Lattice, values: np.ndarray) -> np.ndarray:
    """(N,) values spread, blurred and read back, as the mean field does it."""
    num_vertices = lattice.neighbours.shape[1]
    spread = np.zeros(num_vertices + 1, np.float32)
    np.add.at(spread, lattice.vertices, lattice.weights * values[:, None])
    blur(spread, np.zeros_like(spread), lattice.neighbours, (0,), 1)
    return (lattice.weights * spread[lattice.vertices]).sum(axis=1)


def brute_force(features: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The symmetrically normalised Gaussian filter, every point with every other."""
    difference = features[:, :, None] - features[:, None]
    kernel = np.exp(-0.5 * (difference**2).sum(axis=0))
    factor = 1 / np.sqrt(kernel.sum(axis=1))
    return factor * (kernel @ (factor * values))


def grid_features(height: int, width: int, colour_scale: float) -> np.ndarray:
    """(5, H W) features of a smooth image in units of broad kernels."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    colour = np.stack([x / width, y / height, (x + y) / (height + width)]) * colour_scale
    return np.concatenate([np.stack([x, y]) / 6, colour]).reshape(5, -1).astype(np.float32)


@pytest.mark.parametrize(("num_dims", "tolerance"), [(2, 0.05), (5, 0.08)])
def test_filtering_approximates_the_gaussian(num_dims: int, tolerance: float) -> None:
    features = np.ascontiguousarray(grid_features(20, 24, 1.0)[:num_dims])
    values = (features[0] > features[0].mean()).astype(np.float32)
    found = filtered(build_lattice(features), values)
    expected = brute_force(features.astype(float), values)
    assert np.abs(found - expected).max() < 3 * tolerance
    assert np.abs(found - expected).mean() < tolerance


@pytest.mark.parametrize("num_dims", [2, 5])
def test_points_lie_inside_their_simplex(num_dims: int) -> None:
    features = np.random.default_rng(0).normal(0, 3, (num_dims, 700)).astype(np.float32)
    lattice = build_lattice(features)
    assert lattice.vertices.shape == lattice.weights.shape == (700, num_dims + 1)
    assert (lattice.weights > -1e-5).all()
    assert (np.diff(np.sort(lattice.vertices.astype(int), axis=1), axis=1) > 0).all()


def test_neighbours_are_mutual_and_missing_ones_are_the_last_vertex() -> None:
    features = np.random.default_rng(1).normal(0, 2, (2, 300)).astype(np.float32)
    neighbours = build_lattice(features).neighbours.astype(int)
    num_vertices = neighbours.shape[1]
    for below, above in neighbours.transpose(0, 2, 1):
        there = np.flatnonzero(above < num_vertices)
        np.testing.assert_array_equal(below[above[there]], there)
        assert (below < num_vertices).sum() == len(there)
    assert neighbours.max() == num_vertices


def test_points_far_apart_do_not_touch() -> None:
    features = np.array([[0, 1000, -1000], [0, 1000, 500]], np.float32)
    lattice = build_lattice(features)
    assert len(np.unique(lattice.vertices)) == 9
    np.testing.assert_allclose(
        filtered(lattice, np.array([1, 0, 0], np.float32)), [1, 0, 0], atol=1e-6
    )


def test_more_vertices_than_the_first_table_holds() -> None:
    features = np.random.default_rng(2).uniform(-300, 300, (5, 12000)).astype(np.float32)
    lattice = build_lattice(features)
    assert lattice.neighbours.shape[1] > 60000
    ones = filtered(lattice, np.ones(12000, np.float32))
    assert np.isfinite(ones).all()
    np.testing.assert_allclose(ones.mean(), 1, atol=0.05)


@pytest.mark.parametrize(
    ("num_axes", "fields"), [(2, "crf.gaussian_sxy_px"), (5, "crf.bilateral_sxy_px or crf.bi")]
)
def test_a_kernel_too_narrow_to_number_its_vertices_names_its_settings(
    num_axes: int, fields: str
) -> None:
    features = np.array([[0, 1e6 if num_axes == 5 else 1e10]] * num_axes, np.float32)
    with pytest.raises(ConfigError, match=f"62 bits: raise {fields}"):
        build_lattice(features)


def test_settings_of_the_crf_that_are_too_narrow_for_a_photograph_are_named() -> None:
    image = np.random.default_rng(0).integers(0, 256, (375, 500, 3), np.uint8)
    narrow = CrfKernels(
        gaussian_sxy_px=3.0,
        gaussian_compat=3.0,
        bilateral_sxy_px=1.0,
        bilateral_srgb=0.1,
        bilateral_compat=10.0,
    )
    with pytest.raises(ConfigError, match=r"crf\.bilateral_sxy_px or crf\.bilateral_srgb"):
        make_crf("numba", image, 2, narrow)
