"""Segmentation metrics from integer counts. Counts of shards add up; only this module divides."""

from dataclasses import dataclass

import numpy as np

IGNORE_INDEX = 255


def confusion_matrix(
    ground_truth: np.ndarray, prediction: np.ndarray, num_classes: int
) -> np.ndarray:
    """Counts pixels by (ground truth, prediction).

    Args:
        ground_truth: (H, W) integer class indices; `IGNORE_INDEX` marks pixels without annotation.
        prediction: (H, W) integer class indices. `IGNORE_INDEX` on an annotated pixel counts as a
            missed pixel of its class, in the last column.
        num_classes: number K of classes with background.

    Returns:
        (K, K + 1) int64; the last column counts predictions without a class.
    """
    if ground_truth.shape != prediction.shape:
        raise ValueError(
            f"ground truth {ground_truth.shape} and prediction {prediction.shape} differ in shape"
        )
    annotated = ground_truth != IGNORE_INDEX
    truth = ground_truth[annotated].astype(np.int64)
    guess = np.minimum(prediction[annotated].astype(np.int64), num_classes)
    if truth.size and truth.max() >= num_classes:
        raise ValueError(
            f"ground truth contains class {truth.max()}, expected 0..{num_classes - 1}"
        )
    counts = np.bincount(
        truth * (num_classes + 1) + guess, minlength=num_classes * (num_classes + 1)
    )
    return counts.reshape(num_classes, num_classes + 1)


@dataclass(frozen=True, kw_only=True)
class SegmentationScores:
    """Scores of one confusion matrix, as fractions in [0, 1]; nan if undefined.

    Attributes:
        iou: (K,) TP / (TP + FP + FN) per class; nan for a class that is neither annotated nor
            predicted.
        miou: mean of the defined entries of `iou`.
        num_counted_classes: number of entries that `miou` averages.
        pixel_accuracy: share of annotated pixels that are correct.
        foreground_precision: share of predicted object pixels that are objects of any class.
        foreground_recall: share of annotated object pixels predicted as an object of any class.
    """

    iou: np.ndarray
    miou: float
    num_counted_classes: int
    pixel_accuracy: float
    foreground_precision: float
    foreground_recall: float


def segmentation_scores(confusion: np.ndarray) -> SegmentationScores:
    """Computes the scores of a (K, K) or (K, K + 1) confusion matrix (rows are ground truth)."""
    num_classes = confusion.shape[0]
    true_positive = np.diagonal(confusion[:, :num_classes])
    annotated = confusion.sum(axis=1)
    predicted = confusion[:, :num_classes].sum(axis=0)
    iou = intersection_over_union(true_positive, annotated, predicted)
    object_as_object = confusion[1:, 1:num_classes].sum()
    return SegmentationScores(
        iou=iou,
        miou=mean_defined(iou),
        num_counted_classes=int(np.isfinite(iou).sum()),
        pixel_accuracy=ratio(true_positive.sum(), annotated.sum()),
        foreground_precision=ratio(object_as_object, predicted[1:].sum()),
        foreground_recall=ratio(object_as_object, annotated[1:].sum()),
    )


def class_counts(confusion: np.ndarray) -> np.ndarray:
    """Reduces a (K, K + 1) confusion matrix to (3, K) correct, annotated and predicted pixels.

    It leaves out pixels predicted without a class. The counts give mIoU in a K-th of the memory.
    """
    named = confusion[:, :-1]
    return np.stack([np.diagonal(named), named.sum(axis=1), named.sum(axis=0)])


def miou_of_counts(counts: np.ndarray) -> float:
    """Returns the mIoU of (3, K) `class_counts`."""
    return mean_defined(intersection_over_union(*counts))


def intersection_over_union(
    true_positive: np.ndarray, annotated: np.ndarray, predicted: np.ndarray
) -> np.ndarray:
    """Returns TP / (annotated + predicted - TP), elementwise; nan if the union is empty."""
    union = annotated + predicted - true_positive
    return np.divide(true_positive, union, out=np.full(union.shape, np.nan), where=union > 0)


def mean_defined(values: np.ndarray) -> float:
    """Mean of the entries that are not nan; nan if there are none."""
    defined = values[np.isfinite(values)]
    return float(defined.mean()) if defined.size else float("nan")


def ratio(part: float, whole: float) -> float:
    """Returns part / whole; nan if the whole is 0."""
    return float(part) / float(whole) if whole else float("nan")
