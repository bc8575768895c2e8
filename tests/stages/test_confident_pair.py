"""Thresholds between which a pseudo label is ignored."""

from dataclasses import astuple

import pytest

from slams_ray.config import CrfConfig
from slams_ray.stages.refine import confident_pair


@pytest.mark.parametrize(
    ("threshold", "expected"),
    [
        (0.35, (0.25, 0.35, 0.45)),
        (0.15, (0.05, 0.15, 0.25)),  # here both bounds are 0.05, as in IRN
        (0.12, (0.04, 0.12, 0.22)),
        (0.06, (0.02, 0.06, 0.16)),
        (0.95, (0.85, 0.95, 1.0)),
    ],
)
def test_a_margin_leaves_a_third_of_the_threshold(
    threshold: float, expected: tuple[float, float, float]
) -> None:
    pair = confident_pair(CrfConfig(), threshold)
    assert astuple(pair) == pytest.approx(expected)


def test_without_margins_the_pair_is_the_threshold() -> None:
    config = CrfConfig(foreground_margin=0.0, background_margin=0.0)
    assert astuple(confident_pair(config, 0.1)) == (0.1, 0.1, 0.1)


def test_the_power_form_has_exponents_for_a_pair() -> None:
    config = CrfConfig(form="power", alpha=10.0, alpha_pair=(1.0, 40.0))
    assert astuple(confident_pair(config, 0.1)) == (40.0, 10.0, 1.0)
