"""When thresholds per class are applied: only where the other half of the images confirms them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from slams_ray.artifacts import Record
from slams_ray.config import ThresholdConfig
from slams_ray.seeds.threshold import (
    ThresholdCounts,
    count_thresholds,
    threshold_curve,
    threshold_grid,
)
from slams_ray.stages.search_threshold import THRESHOLD_NAME, class_offsets
from slams_ray.stages.stage import Result
from slams_ray.stages.threshold_choice import (
    BEST_MIOU,
    choose,
    class_threshold_warnings,
    learn_class_thresholds,
)

NUM_CATEGORIES, NUM_THRESHOLDS = 3, 21
LOW, HIGH = {1: 0.3, 2: 0.9}, {1: 0.9, 2: 0.3}


def counts(object_score: dict[int, float]) -> ThresholdCounts:
    """Objects with this score per class on a background of two thirds of it."""
    total = ThresholdCounts.zeros(NUM_CATEGORIES, NUM_THRESHOLDS)
    for label, score in object_score.items():
        truth = np.zeros((4, 4), np.uint8)
        truth[:2] = label
        maps = np.where(truth == label, score, score * 2 / 3)[None].astype(np.float32)
        total = total + count_thresholds(
            maps, np.array([label]), truth, NUM_CATEGORIES, NUM_THRESHOLDS
        )
    return total


def curve_of(*halves: ThresholdCounts) -> Any:
    return threshold_curve(halves[0] + halves[1])


def test_offsets_that_the_other_half_confirms_are_applied() -> None:
    halves = [counts(LOW), counts(LOW)]
    found = learn_class_thresholds(halves, curve_of(*halves).best_threshold, BEST_MIOU)
    assert found.applied
    assert found.miou == 1 > found.common_miou
    assert class_threshold_warnings(ThresholdConfig(per_class=True), {"slams": found}) == []


def test_added_to_the_common_threshold_they_are_the_thresholds_that_were_confirmed() -> None:
    # The best threshold of both halves together is not that of the half they were learnt on.
    halves = [counts(LOW), counts({1: 0.34, 2: 0.86}) + counts({1: 0.36})]
    for common in (0.2, 0.45):
        found = learn_class_thresholds(halves, common, BEST_MIOU)
        thresholds = common + np.array(found.offsets)
        assert 0.2 <= thresholds[1] < 0.3
        assert 0.6 <= thresholds[2] < 0.9
        assert np.isclose(threshold_grid(NUM_THRESHOLDS)[:, None], thresholds).any(axis=0).all()


def test_offsets_that_the_other_half_rejects_are_not_applied() -> None:
    halves = [counts(LOW), counts(HIGH)]
    found = learn_class_thresholds(halves, curve_of(*halves).best_threshold, BEST_MIOU)
    assert not found.applied
    assert found.miou < found.common_miou
    (warning,) = class_threshold_warnings(ThresholdConfig(per_class=True), {"slams": found})
    assert "slams" in warning
    assert f"{found.miou:.4f}" in warning


def test_offsets_are_not_added_to_a_fixed_threshold() -> None:
    halves = [counts(LOW), counts(LOW)]
    config = ThresholdConfig(per_class=True, fixed=0.3)
    chosen, how = choose(config, {"slams": curve_of(*halves)}, {"slams": {}})
    found = learn_class_thresholds(halves, chosen["slams"], how)
    assert not found.applied
    assert "threshold.fixed" in class_threshold_warnings(config, {"slams": found})[0]


def test_without_masks_the_record_says_that_nothing_was_learnt() -> None:
    (warning,) = class_threshold_warnings(ThresholdConfig(per_class=True), {})
    assert "no training image has a mask" in warning
    assert class_threshold_warnings(ThresholdConfig(), {}) == []


@pytest.mark.parametrize(("applied", "expected"), [(True, (0.0, 0.1)), (False, ())])
def test_later_stages_get_applied_offsets_only(
    tmp_path: Path, applied: bool, expected: tuple[float, ...]
) -> None:
    per_class = {"slams": {"offsets": [0.0, 0.1], "applied": applied}}
    (tmp_path / THRESHOLD_NAME).write_text(json.dumps({"per_class": per_class}))
    record = Record(
        stage="search_threshold", fingerprint="", config={}, inputs={}, seconds=0, num_rows=0
    )
    result = Result(output_dir=str(tmp_path), record=record, cached=True)
    assert class_offsets(result, "slams") == expected
    assert class_offsets(result, "cam") == ()
