from itertools import product

import numpy as np
import pytest

from slams_ray.metrics import IGNORE_INDEX, confusion_matrix, segmentation_scores
from slams_ray.seeds.class_thresholds import choose_class_thresholds, miou_at
from slams_ray.seeds.seed import seed_labels
from slams_ray.seeds.threshold import (
    ThresholdCounts,
    count_thresholds,
    threshold_curve,
    threshold_grid,
)

NUM_CATEGORIES, NUM_THRESHOLDS = 4, 11
Image = tuple[np.ndarray, np.ndarray, np.ndarray]
PEAK = {1: 0.35, 2: 0.95, 3: 0.6}


def images() -> list[Image]:
    """Objects whose maps reach another height for each class, over noise of the same kind."""
    made = []
    rng = np.random.default_rng(0)
    for labels in ([1, 2], [3], [], [2, 3, 1], [1], [2]):
        truth = rng.choice([0, 0, *labels], (12, 12)).astype(np.uint8)
        maps = np.stack(
            [PEAK[c] * np.where(truth == c, 1, rng.uniform(0.1, 0.8, truth.shape)) for c in labels]
            or [np.zeros_like(truth, float)]
        )[: len(labels)]
        truth[rng.random(truth.shape) < 0.1] = IGNORE_INDEX
        made.append((maps.astype(np.float32), np.array(labels, np.int64), truth))
    return made


def counts_of(data: list[Image]) -> ThresholdCounts:
    total = ThresholdCounts.zeros(NUM_CATEGORIES, NUM_THRESHOLDS)
    for image in data:
        total = total + count_thresholds(*image, NUM_CATEGORIES, NUM_THRESHOLDS)
    return total


def miou_of_seeds(data: list[Image], chosen: np.ndarray) -> float:
    thresholds = threshold_grid(NUM_THRESHOLDS)[chosen]
    confusion = sum(
        confusion_matrix(truth, seed_labels(maps, classes, thresholds[classes]), NUM_CATEGORIES)
        for maps, classes, truth in data
    )
    return segmentation_scores(np.asarray(confusion)).miou


@pytest.mark.parametrize("chosen", [(0, 3, 8, 5), (0, 0, 0, 0), (0, 10, 10, 10), (7, 2, 2, 9)])
def test_miou_is_that_of_seeds_cut_class_by_class(chosen: tuple[int, ...]) -> None:
    data = images()
    expected = miou_of_seeds(data, np.array(chosen))
    assert miou_at(counts_of(data), np.array(chosen)) == pytest.approx(expected)


def test_equal_thresholds_score_as_the_curve() -> None:
    counts = counts_of(images())
    curve = threshold_curve(counts)
    for index in range(NUM_THRESHOLDS):
        assert miou_at(counts, np.full(NUM_CATEGORIES, index)) == pytest.approx(curve.miou[index])


def test_the_ascent_finds_the_best_of_all_combinations() -> None:
    counts = counts_of(images())
    start = threshold_curve(counts).best_index
    found = miou_at(counts, choose_class_thresholds(counts, start))
    combinations = product([0], *[range(NUM_THRESHOLDS)] * (NUM_CATEGORIES - 1))
    best = max(miou_at(counts, np.array(chosen)) for chosen in combinations)
    assert found == pytest.approx(best)
    assert found > threshold_curve(counts).best_miou + 0.05


def test_a_class_without_pixels_keeps_the_common_threshold() -> None:
    data = [image for image in images() if 3 not in image[1]]
    assert choose_class_thresholds(counts_of(data), start=4)[3] == 4
