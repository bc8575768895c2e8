from math import isnan, sqrt

import pytest

from slams_ray.studies.comparison import Score, by_method, paired_differences, spread, spreads


def score(method: str, seed: int, value: float, metric: str = "seed_miou") -> Score:
    return Score(method=method, seed=seed, metric=metric, value=value)


SCORES = [
    score("cam", 0, 0.40),
    score("cam", 1, 0.44),
    score("cam", 2, 0.42),
    score("slams", 0, 0.50),
    score("slams", 1, 0.43),
    score("slams", 0, 0.60, "refined_miou"),
]


def test_spread_is_mean_and_sample_deviation() -> None:
    found = spread([0.40, 0.44, 0.42])
    assert found.mean == pytest.approx(0.42)
    assert found.deviation == pytest.approx(sqrt((0.02**2 + 0.02**2) / 2))
    assert found.num_seeds == 3


def test_one_seed_has_no_deviation() -> None:
    assert isnan(spread([0.4]).deviation)


def test_methods_and_metrics_are_kept_apart() -> None:
    table = spreads(SCORES)
    assert list(table) == ["cam", "slams"]
    assert set(table["cam"]) == {"seed_miou"}
    assert table["slams"]["seed_miou"].mean == pytest.approx(0.465)
    assert table["slams"]["refined_miou"].mean == pytest.approx(0.60)
    assert by_method(SCORES, "refined_miou") == {"slams": {0: 0.60}}


def test_differences_pair_seeds_and_leave_out_those_without_a_partner() -> None:
    found = paired_differences(SCORES, "seed_miou", "slams", "cam")
    assert found == pytest.approx({0: 0.10, 1: -0.01})
    assert paired_differences(SCORES, "refined_miou", "slams", "cam") == {}
