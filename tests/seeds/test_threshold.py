from itertools import pairwise

import numpy as np
import pytest

from slams_ray.metrics import IGNORE_INDEX, confusion_matrix, segmentation_scores
from slams_ray.seeds.seed import seed_labels
from slams_ray.seeds.threshold import (
    ThresholdCounts,
    ThresholdCurve,
    count_thresholds,
    score_bins,
    threshold_curve,
    threshold_grid,
)

NUM_ALL_CLASSES = 6
Image = tuple[np.ndarray, np.ndarray, np.ndarray]


def random_image(seed: int, class_indices: list[int], levels: int | None) -> Image:
    """Maps, classes and ground truth, which also holds classes 4 (never labelled) and 255."""
    rng = np.random.default_rng(seed)
    maps = rng.random((len(class_indices), 8, 9)).astype(np.float32)
    if levels:
        maps = (np.round(maps * levels) / levels).astype(np.float32)
    truth = rng.choice([0, 0, *class_indices, 4], (8, 9)).astype(np.uint8)
    truth[rng.random(truth.shape) < 0.15] = IGNORE_INDEX
    return maps, np.array(class_indices, np.int64), truth


def images(levels: int | None) -> list[Image]:
    labels: list[list[int]] = [[1, 2], [3], [], [2, 3, 1]]
    return [random_image(i, indices, levels) for i, indices in enumerate(labels)]


def counts_of(data: list[Image], num_thresholds: int) -> ThresholdCounts:
    total = ThresholdCounts.zeros(NUM_ALL_CLASSES, num_thresholds)
    for image in data:
        total = total + count_thresholds(*image, NUM_ALL_CLASSES, num_thresholds)
    return total


@pytest.mark.parametrize("num_thresholds", [2, 5, 101, 256])
def test_score_bins_equal_searchsorted(num_thresholds: int) -> None:
    grid = threshold_grid(num_thresholds)
    rng = np.random.default_rng(num_thresholds)
    scores = np.concatenate(
        [
            rng.random(20_000).astype(np.float32),
            grid,
            np.nextafter(grid[1:], np.float32(0)),
            np.nextafter(grid[:-1], np.float32(2)),
            (np.arange(256) / np.float32(255)).astype(np.float32),
        ]
    )
    expected = np.searchsorted(grid, scores, side="left")
    np.testing.assert_array_equal(score_bins(scores, num_thresholds), expected)


@pytest.mark.parametrize("num_thresholds", [2, 11, 256])
@pytest.mark.parametrize("levels", [None, 10, 255])
def test_every_threshold_scores_as_if_evaluated_alone(
    num_thresholds: int, levels: int | None
) -> None:
    data = images(levels)
    curve = threshold_curve(counts_of(data, num_thresholds))
    for i, threshold in enumerate(threshold_grid(num_thresholds)):
        confusion = sum(
            confusion_matrix(truth, seed_labels(maps, classes, threshold), NUM_ALL_CLASSES)
            for maps, classes, truth in data
        )
        expected = segmentation_scores(np.asarray(confusion))
        np.testing.assert_allclose(curve.iou[i], expected.iou)
        assert curve.miou[i] == pytest.approx(expected.miou)
        assert curve.foreground_precision[i] == pytest.approx(
            expected.foreground_precision, nan_ok=True
        )
        assert curve.foreground_recall[i] == pytest.approx(expected.foreground_recall)


def test_a_class_absent_everywhere_is_nan_at_every_threshold() -> None:
    curve = threshold_curve(counts_of(images(None), 11))
    assert np.isnan(curve.iou[:, 5]).all()
    assert (curve.iou[:, 4] == 0).all()


def test_counts_are_additive_over_images() -> None:
    maps_a, classes, truth_a = random_image(5, [1, 3], 20)
    maps_b, _, truth_b = random_image(6, [1, 3], 20)
    joined = (np.concatenate([maps_a, maps_b], axis=1), classes, np.concatenate([truth_a, truth_b]))
    parts = counts_of([(maps_a, classes, truth_a), (maps_b, classes, truth_b)], 21)
    whole = counts_of([joined], 21)
    for name, value in vars(whole).items():
        np.testing.assert_array_equal(value, getattr(parts, name), err_msg=name)


def test_raising_the_threshold_never_adds_foreground() -> None:
    maps, classes, _ = random_image(7, [2, 5], None)
    foregrounds = [seed_labels(maps, classes, t) > 0 for t in threshold_grid(33)]
    for lower, higher in pairwise(foregrounds):
        assert not (higher & ~lower).any()
    curve = threshold_curve(counts_of(images(None), 33))
    assert (np.diff(curve.foreground_recall) <= 0).all()


def test_an_image_without_labels_counts_only_annotated_pixels() -> None:
    counts = counts_of([random_image(8, [], None)], 5)
    assert counts.winner.sum() == counts.winner_correct.sum() == 0
    assert counts.background_won[0, 0] + counts.object_pixels[0] == counts.annotated.sum() > 0


def test_no_annotated_pixel_gives_a_curve_of_nan() -> None:
    maps, classes, truth = random_image(9, [1], None)
    curve = threshold_curve(counts_of([(maps, classes, np.full_like(truth, IGNORE_INDEX))], 5))
    assert np.isnan(curve.miou).all()


def curve_with(miou: list[float]) -> ThresholdCurve:
    values = np.array(miou)
    return ThresholdCurve(
        thresholds=threshold_grid(len(miou)).astype(np.float64),
        iou=values[:, None],
        miou=values,
        foreground_precision=values,
        foreground_recall=values,
    )


def test_the_best_threshold_is_the_middle_of_neighbours_that_tie() -> None:
    curve = curve_with([0.1, 0.5, 0.5, 0.5, 0.2])
    assert curve.best_index == 2
    assert curve.best_threshold == 0.5
    assert curve.best_miou == 0.5


def test_the_best_threshold_skips_nan() -> None:
    assert curve_with([np.nan, 0.3, 0.6, np.nan]).best_index == 2


def test_the_best_threshold_separates_maps_that_fit_the_ground_truth() -> None:
    truth = np.zeros((6, 6), np.uint8)
    truth[:, 3:] = 1
    maps = np.where(truth == 1, 0.8, 0.3).astype(np.float32)[None]
    curve = threshold_curve(counts_of([(maps, np.array([1]), truth)], 101))
    assert curve.best_miou == 1
    assert curve.best_threshold == pytest.approx(0.55, abs=0.011)


def test_memory_grows_with_classes_and_thresholds_and_not_with_their_square() -> None:
    counts = ThresholdCounts.zeros(1000, 256)
    assert sum(value.nbytes for value in vars(counts).values()) < 6.2e6


def test_a_class_beyond_the_last_is_named() -> None:
    maps, truth = np.ones((1, 2, 2), np.float32), np.full((2, 2), 7, np.uint8)
    with pytest.raises(ValueError, match=r"holds class 7, expected 0\.\.5"):
        count_thresholds(maps, np.array([1]), truth, NUM_ALL_CLASSES, 5)
