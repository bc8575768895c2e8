"""Which threshold is chosen, with masks and without."""

import numpy as np
import pytest

from slams_ray.config import ThresholdConfig
from slams_ray.seeds.label_free import CriterionSums, criterion_sums
from slams_ray.seeds.threshold import ThresholdCurve, count_thresholds, threshold_curve
from slams_ray.stages.threshold_choice import BEST_MIOU, choose, choose_without_masks

NUM_THRESHOLDS = 21
SCORES = {"cam": 0.3, "slams": 0.8}
NO_CHOICES: dict[str, dict[str, dict[str, float]]] = {"cam": {}, "slams": {}}


def curve(score: float) -> ThresholdCurve:
    """Of an object with this score on a background of half of it."""
    truth = np.zeros((4, 4), np.uint8)
    truth[:2] = 1
    maps = np.where(truth == 1, score, score / 2)[None].astype(np.float32)
    return threshold_curve(count_thresholds(maps, np.array([1]), truth, 2, NUM_THRESHOLDS))


def sums(score: float) -> CriterionSums:
    scores = np.where(np.arange(100) < 30, score, score / 2).astype(np.float32)
    return criterion_sums(scores, NUM_THRESHOLDS)


def test_every_system_gets_the_threshold_of_its_highest_miou() -> None:
    curves = {name: curve(score) for name, score in SCORES.items()}
    chosen, how = choose(ThresholdConfig(), curves, NO_CHOICES)
    assert how == BEST_MIOU
    for name, score in SCORES.items():
        assert score / 2 <= chosen[name] < score


def test_a_fixed_threshold_is_taken_whatever_the_curves_say() -> None:
    curves = {name: curve(score) for name, score in SCORES.items()}
    chosen, how = choose(ThresholdConfig(fixed=0.11), curves, NO_CHOICES)
    assert chosen == {"cam": 0.11, "slams": 0.11}
    assert how == "threshold.fixed"


@pytest.mark.parametrize("criterion", ["cam_foreground", "bimodality"])
def test_without_masks_the_criterion_separates_object_and_background(criterion: str) -> None:
    free = choose_without_masks({name: sums(score) for name, score in SCORES.items()}, {})
    chosen, how = choose(ThresholdConfig(without_masks=criterion), {}, free)
    assert criterion in how
    for name, score in SCORES.items():
        assert score / 2 <= chosen[name] < score


def test_where_masks_exist_every_criterion_tells_its_regret() -> None:
    free = choose_without_masks({"cam": sums(0.3)}, {"cam": curve(0.3)})
    assert {choice["regret"] for choice in free["cam"].values()} == {0.0}


def test_without_the_baseline_its_foreground_cannot_be_matched() -> None:
    free = choose_without_masks({"slams": sums(0.8)}, {})
    assert set(free["slams"]) == {"bimodality"}
    chosen, how = choose(ThresholdConfig(), {}, free)
    assert 0.4 <= chosen["slams"] < 0.8
    assert "criterion bimodality" in how


def test_without_any_labelled_image_the_fallback_is_taken() -> None:
    nothing = CriterionSums.zeros(NUM_THRESHOLDS)
    free = choose_without_masks(dict.fromkeys(SCORES, nothing), {})
    chosen, _ = choose(ThresholdConfig(), {}, free)
    assert chosen == dict.fromkeys(SCORES, ThresholdConfig().fallback)
