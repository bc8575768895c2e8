import numpy as np
import pytest
from sklearn.metrics import confusion_matrix as sklearn_confusion_matrix
from sklearn.metrics import jaccard_score

from slams_ray.metrics import (
    IGNORE_INDEX,
    confusion_matrix,
    intersection_over_union,
    mean_defined,
    ratio,
    segmentation_scores,
)


def random_pair(seed: int, num_classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, num_classes, (9, 7)).astype(np.uint8)
    guess = rng.integers(0, num_classes, (9, 7)).astype(np.uint8)
    truth[rng.random(truth.shape) < 0.2] = IGNORE_INDEX
    guess[rng.random(guess.shape) < 0.1] = IGNORE_INDEX
    return truth, guess


@pytest.mark.parametrize("seed", range(3))
def test_confusion_matrix_equals_a_loop_over_pixels(seed: int) -> None:
    truth, guess = random_pair(seed)
    expected = np.zeros((4, 5), np.int64)
    for t, g in zip(truth.flat, guess.flat, strict=True):
        if t != IGNORE_INDEX:
            expected[t, min(g, 4)] += 1
    found = confusion_matrix(truth, guess, 4)
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, expected)


def test_confusion_matrix_and_iou_equal_scikit_learn() -> None:
    truth, guess = random_pair(3)
    guess[guess == IGNORE_INDEX] = 0
    kept = truth != IGNORE_INDEX
    found = confusion_matrix(truth, guess, 4)
    expected = sklearn_confusion_matrix(truth[kept], guess[kept], labels=range(4))
    np.testing.assert_array_equal(found[:, :4], expected)
    iou = jaccard_score(truth[kept], guess[kept], labels=range(4), average=None)
    np.testing.assert_allclose(segmentation_scores(found).iou, iou)


def test_confusion_matrix_of_two_images_is_the_sum_of_theirs() -> None:
    (truth_a, guess_a), (truth_b, guess_b) = random_pair(4), random_pair(5)
    both = confusion_matrix(np.vstack([truth_a, truth_b]), np.vstack([guess_a, guess_b]), 4)
    parts = confusion_matrix(truth_a, guess_a, 4) + confusion_matrix(truth_b, guess_b, 4)
    np.testing.assert_array_equal(both, parts)


def test_a_perfect_prediction_has_miou_1() -> None:
    truth, _ = random_pair(6)
    scores = segmentation_scores(confusion_matrix(truth, truth, 4))
    assert scores.miou == scores.pixel_accuracy == 1
    assert scores.foreground_precision == scores.foreground_recall == 1


def test_an_ignored_prediction_is_a_miss_of_the_true_class_and_of_no_other() -> None:
    truth = np.array([[1, 1, 2, 2]], np.uint8)
    guess = np.array([[1, IGNORE_INDEX, 2, 2]], np.uint8)
    scores = segmentation_scores(confusion_matrix(truth, guess, 3))
    np.testing.assert_allclose(scores.iou, [np.nan, 0.5, 1.0])
    assert scores.pixel_accuracy == 0.75
    assert scores.foreground_recall == 0.75
    assert scores.foreground_precision == 1


def test_a_class_absent_on_both_sides_is_nan_and_excluded_from_the_mean() -> None:
    truth = np.array([[0, 0, 1, 1]], np.uint8)
    guess = np.array([[0, 0, 1, 0]], np.uint8)
    scores = segmentation_scores(confusion_matrix(truth, guess, 4))
    assert np.isnan(scores.iou[2:]).all()
    assert scores.num_counted_classes == 2
    assert scores.miou == pytest.approx((2 / 3 + 1 / 2) / 2)


def test_a_class_that_is_only_predicted_counts_with_iou_0() -> None:
    truth, guess = np.zeros((1, 4), np.uint8), np.array([[0, 0, 0, 1]], np.uint8)
    scores = segmentation_scores(confusion_matrix(truth, guess, 2))
    assert scores.iou.tolist() == [0.75, 0.0]
    assert scores.num_counted_classes == 2


def test_an_image_without_annotated_pixels_counts_nothing_and_scores_nan() -> None:
    truth = np.full((3, 3), IGNORE_INDEX, np.uint8)
    confusion = confusion_matrix(truth, np.zeros_like(truth), 2)
    assert confusion.sum() == 0
    scores = segmentation_scores(confusion)
    assert np.isnan(scores.miou)
    assert np.isnan(scores.pixel_accuracy)
    assert scores.num_counted_classes == 0


def test_foreground_precision_and_recall_count_objects_of_any_class() -> None:
    truth = np.array([[1, 2, 2, 0, 0]], np.uint8)
    guess = np.array([[2, 2, 0, 1, 0]], np.uint8)
    scores = segmentation_scores(confusion_matrix(truth, guess, 3))
    assert scores.foreground_precision == pytest.approx(2 / 3)
    assert scores.foreground_recall == pytest.approx(2 / 3)


def test_a_square_matrix_without_ignored_column_gets_the_same_scores() -> None:
    truth, guess = random_pair(7)
    guess[guess == IGNORE_INDEX] = 1
    confusion = confusion_matrix(truth, guess, 4)
    assert segmentation_scores(confusion).miou == segmentation_scores(confusion[:, :4]).miou


def test_counts_beyond_32_bits_do_not_overflow() -> None:
    confusion = np.array([[2**40, 0], [2**40, 2**41]], np.int64)
    assert segmentation_scores(confusion).iou.tolist() == pytest.approx([1 / 2, 2 / 3])


def test_different_shapes_raise() -> None:
    with pytest.raises(ValueError, match="differ in shape"):
        confusion_matrix(np.zeros((2, 3), np.uint8), np.zeros((3, 2), np.uint8), 2)


def test_a_ground_truth_class_out_of_range_raises() -> None:
    with pytest.raises(ValueError, match="contains class 7"):
        confusion_matrix(np.full((2, 2), 7, np.uint8), np.zeros((2, 2), np.uint8), 3)


def test_ratios_of_nothing_are_nan() -> None:
    assert np.isnan(ratio(0, 0))
    assert np.isnan(mean_defined(np.array([np.nan, np.nan])))
    zero = np.array([0])
    assert np.isnan(intersection_over_union(zero, zero, zero)).all()
