"""Exact mIoU of every background threshold from one pass over the activations.

The winning class of a pixel does not depend on the threshold: argmax over [threshold, A_1..A_C] is
the winner of A where its score exceeds the threshold, and background elsewhere. So one pass counts,
per class, the bin of the threshold grid that each pixel's winning score falls into. Cumulative sums
then give the true positives and predictions of all thresholds. Memory is 24 K (T + 1) bytes: 6 MB
for 1000 classes and 256 thresholds.
"""

from dataclasses import dataclass

import numpy as np

from slams_ray.metrics import IGNORE_INDEX, intersection_over_union, mean_defined, ratio


def threshold_grid(num_thresholds: int) -> np.ndarray:
    """Returns (T,) float32 thresholds i / (T - 1), ascending from 0 to 1."""
    return (np.arange(num_thresholds) / (num_thresholds - 1)).astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class ThresholdCounts:
    """Pixel counts that score every threshold. They are int64 and can be added.

    The bin of a pixel is the number of thresholds below its winning score. A pixel of bin b is
    foreground at threshold i exactly if i < b.

    Attributes:
        winner_correct: (K, T + 1) row c > 0: pixels of class c that c wins, by bin.
        winner: (K, T + 1) row c > 0: annotated pixels that class c wins, by bin.
        background_won: (K, T + 1) row c > 0: background pixels that class c wins, by bin. Row 0:
            background pixels of images without a map.
        object_pixels: (T + 1,) pixels of any object class in the ground truth, by bin.
        annotated: (K,) annotated pixels per ground-truth class.
    """

    winner_correct: np.ndarray
    winner: np.ndarray
    background_won: np.ndarray
    object_pixels: np.ndarray
    annotated: np.ndarray

    @classmethod
    def zeros(cls, num_all_classes: int, num_thresholds: int) -> "ThresholdCounts":
        shape = (num_all_classes, num_thresholds + 1)
        return cls(
            winner_correct=np.zeros(shape, np.int64),
            winner=np.zeros(shape, np.int64),
            background_won=np.zeros(shape, np.int64),
            object_pixels=np.zeros(shape[1], np.int64),
            annotated=np.zeros(shape[0], np.int64),
        )

    def __add__(self, other: "ThresholdCounts") -> "ThresholdCounts":
        return ThresholdCounts(**{k: v + getattr(other, k) for k, v in vars(self).items()})


def score_bins(scores: np.ndarray, num_thresholds: int) -> np.ndarray:
    """Returns the number of grid thresholds strictly below each score.

    Equal to `np.searchsorted(threshold_grid(T), scores, side="left")`, but several times faster.
    The grid is uniform, so rounding finds the nearest threshold, and one comparison remains.

    Args:
        scores: float32 of any shape, in [0, 1].

    Returns:
        int64 of the same shape, in 0..T.
    """
    nearest = np.rint(scores * np.float32(num_thresholds - 1)).astype(np.int64)
    nearest += scores > threshold_grid(num_thresholds)[nearest]
    return nearest


def count_thresholds(
    activation: np.ndarray,
    class_indices: np.ndarray,
    ground_truth: np.ndarray,
    num_all_classes: int,
    num_thresholds: int,
) -> ThresholdCounts:
    """Counts the pixels of one image for every threshold of the grid.

    Args:
        activation: (P, H, W) float32 in [0, 1], maps of the P classes present; P may be 0.
        class_indices: (P,) class index (1..C) of each map.
        ground_truth: (H, W) uint8, `IGNORE_INDEX` where nothing is annotated.

    Raises:
        ValueError: the ground truth holds an unknown class.
    """
    num_present, width = len(class_indices), num_thresholds + 1
    winner, top = _winners(activation, ground_truth.shape)
    # Joint histogram over (truth: present class, background, other object, ignored; winner; bin).
    # It is small, because P counts the classes of this image and not those of the data set.
    num_winners = max(num_present, 1)
    position = np.full(IGNORE_INDEX + 1, num_present + 1, np.int64)
    position[0] = num_present
    position[class_indices] = np.arange(num_present)
    position[IGNORE_INDEX] = num_present + 2
    cells = (position * num_winners * width)[ground_truth]
    cells += winner * width
    cells += score_bins(top, num_thresholds)
    joint = np.bincount(cells.ravel(), minlength=(num_present + 3) * num_winners * width)
    joint = joint.reshape(num_present + 3, num_winners, width)[:-1]
    counts = ThresholdCounts.zeros(num_all_classes, num_thresholds)
    if num_present:
        own = np.arange(num_present)
        counts.winner_correct[class_indices] = joint[own, own]
        counts.winner[class_indices] = joint.sum(axis=0)
    background = joint[num_present]
    counts.background_won[class_indices if num_present else [0]] = background
    counts.object_pixels[:] = joint.sum(axis=(0, 1)) - background.sum(axis=0)
    truth = np.bincount(ground_truth.ravel(), minlength=IGNORE_INDEX + 1)
    if truth[num_all_classes:IGNORE_INDEX].any():
        raise ValueError(
            f"ground truth holds class {truth[:IGNORE_INDEX].nonzero()[0][-1]}, expected "
            f"0..{num_all_classes - 1}"
        )
    counts.annotated[:] = truth[:num_all_classes]
    return counts


def _winners(activation: np.ndarray, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Returns the position of each pixel's highest map, the first of equal ones, and its value."""
    winner = np.zeros(shape, np.int64)
    if not len(activation):
        return winner, np.zeros(shape, np.float32)
    top = activation[0]
    for number, rival in enumerate(activation[1:], start=1):
        winner[rival > top] = number
        top = np.maximum(top, rival)
    return winner, top


@dataclass(frozen=True, kw_only=True)
class ThresholdCurve:
    """Scores of every threshold, as fractions in [0, 1].

    Attributes:
        thresholds: (T,) ascending.
        iou: (T, K) per class, nan where a class never occurs.
        miou: (T,).
        foreground_precision: (T,) nan where nothing is foreground.
        foreground_recall: (T,).
    """

    thresholds: np.ndarray
    iou: np.ndarray
    miou: np.ndarray
    foreground_precision: np.ndarray
    foreground_recall: np.ndarray

    @property
    def best_index(self) -> int:
        """Index of the highest mIoU; the middle index if several thresholds tie."""
        best = np.flatnonzero(self.miou >= np.nanmax(self.miou))
        return int(best[len(best) // 2])

    @property
    def best_threshold(self) -> float:
        return float(self.thresholds[self.best_index])

    @property
    def best_miou(self) -> float:
        return float(self.miou[self.best_index])

    @property
    def mean_miou(self) -> float:
        """Mean mIoU over all thresholds: high where the choice of a threshold matters little."""
        return float(np.nanmean(self.miou))

    def width_within(self, points: float) -> float:
        """Width of the range of thresholds around the best whose mIoU is at most `points` lower.

        AMN claims a wide range.

        Args:
            points: fraction, such as 0.01 for one point.
        """
        near = self.miou >= self.best_miou - points
        low = high = self.best_index
        while low > 0 and near[low - 1]:
            low -= 1
        while high + 1 < len(near) and near[high + 1]:
            high += 1
        return float(self.thresholds[high] - self.thresholds[low])


def above(histogram: np.ndarray) -> np.ndarray:
    """Turns (..., T + 1) counts by bin into (..., T) counts above each threshold."""
    return histogram[..., ::-1].cumsum(axis=-1)[..., ::-1][..., 1:]


def threshold_curve(counts: ThresholdCounts) -> ThresholdCurve:
    """Turns summed counts into the curve. Bins above i are foreground at threshold i."""
    true_positive, predicted = above(counts.winner_correct), above(counts.winner)
    background = counts.background_won.sum(axis=0)
    true_positive[0] = background.sum() - above(background)
    foreground = predicted[1:].sum(axis=0)
    predicted[0] = counts.annotated.sum() - foreground
    iou = intersection_over_union(true_positive, counts.annotated[:, None], predicted).T
    object_found = above(counts.object_pixels)
    num_object_pixels = counts.annotated[1:].sum()
    return ThresholdCurve(
        thresholds=threshold_grid(iou.shape[0]).astype(np.float64),
        iou=iou,
        miou=np.array([mean_defined(row) for row in iou]),
        foreground_precision=np.array(
            [ratio(*pair) for pair in zip(object_found, foreground, strict=True)]
        ),
        foreground_recall=np.array([ratio(found, num_object_pixels) for found in object_found]),
    )
