import numpy as np
import pytest

from slams_ray.refinement.walk.chebyshev import (
    power_coefficients,
    powers,
    truncated_coefficients,
)

POINTS = np.linspace(-1, 1, 401)


@pytest.mark.parametrize("num_steps", [0, 1, 2, 7, 40, 256])
def test_the_whole_series_is_the_power(num_steps: int) -> None:
    coefficients = power_coefficients(num_steps)
    series = np.polynomial.chebyshev.chebval(POINTS, coefficients)
    np.testing.assert_allclose(series, POINTS**num_steps, atol=1e-11)
    assert coefficients.min() >= 0
    assert coefficients.sum() == pytest.approx(1, abs=1e-11)


@pytest.mark.parametrize("tail", [1e-2, 1e-4, 1e-8])
@pytest.mark.parametrize("num_steps", [1, 16, 256, 2000])
def test_a_series_cut_short_errs_by_at_most_its_tail(num_steps: int, tail: float) -> None:
    coefficients = truncated_coefficients(num_steps, tail)
    series = np.polynomial.chebyshev.chebval(POINTS, coefficients)
    assert np.abs(series - POINTS**num_steps).max() <= tail + 1e-11


def test_few_terms_serve_many_steps() -> None:
    assert len(truncated_coefficients(256, 1e-8)) < 6 * 16
    assert len(truncated_coefficients(4096, 1e-8)) < 6 * 64


def test_one_recurrence_gives_every_power() -> None:
    rng = np.random.default_rng(0)
    rotation = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    matrix = rotation @ np.diag(rng.uniform(-1, 1, 6)) @ rotation.T
    start = rng.normal(size=(2, 6))
    num_products = 0

    def multiply(rows: np.ndarray) -> np.ndarray:
        nonlocal num_products
        num_products += 1
        return rows @ matrix

    steps = (0, 5, 1, 30, 30)
    found = powers(multiply, start, steps, 1e-9)
    assert num_products <= 30
    for num_steps, values in zip(steps, found, strict=True):
        expected = start @ np.linalg.matrix_power(matrix, num_steps)
        np.testing.assert_allclose(values, expected, atol=1e-8)


def test_no_steps_give_no_powers() -> None:
    assert powers(lambda rows: rows, np.ones((1, 3)), [], 1e-6) == []
