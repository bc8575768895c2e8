"""A background threshold per class, from the same counts as the threshold curve.

The winning class of a pixel depends on no threshold, so the IoU of a class depends on its own
threshold only, and that of background on all. mIoU is therefore climbed class by class, each step
exact.
"""

from dataclasses import dataclass

import numpy as np

from slams_ray.metrics import intersection_over_union, mean_defined
from slams_ray.seeds.threshold import ThresholdCounts, above

MAX_PASSES = 50


@dataclass(frozen=True, kw_only=True)
class _Pixels:
    """Counts above each threshold; (K, T) int64, row 0 unused. annotated: (K,)."""

    correct: np.ndarray
    won: np.ndarray
    background_won: np.ndarray
    annotated: np.ndarray

    def iou_of_classes(self) -> np.ndarray:
        """(K, T) IoU of each object class at each of its thresholds."""
        return intersection_over_union(self.correct, self.annotated[:, None], self.won)

    def iou_of_background(self, background_won: np.ndarray, won: np.ndarray) -> np.ndarray:
        """IoU of background when objects take so many of its pixels, and so many of all."""
        found = self.annotated[0] - background_won
        return intersection_over_union(found, self.annotated[0], self.annotated.sum() - won)


def choose_class_thresholds(counts: ThresholdCounts, start: int) -> np.ndarray:
    """Coordinate ascent of mIoU over the thresholds of all classes.

    Args:
        start: grid index all classes start from; those that never win a pixel keep it.

    Returns:
        (K,) int64 grid indices; that of background is `start` and means nothing.
    """
    pixels = _pixels(counts)
    num_categories = len(pixels.annotated)
    iou = pixels.iou_of_classes()
    chosen = np.full(num_categories, start, np.int64)
    rows = np.arange(num_categories)
    for _ in range(MAX_PASSES):
        before = chosen.copy()
        for c in np.flatnonzero(pixels.won.any(axis=1)).tolist():
            won, background_won = (
                values[rows, chosen].sum() - values[c, chosen[c]] + values[c]
                for values in (pixels.won, pixels.background_won)
            )
            others = iou[rows, chosen]
            others[[0, c]] = np.nan
            known = others[np.isfinite(others)]
            ends = np.stack([iou[c], pixels.iou_of_background(background_won, won)])
            num_known = len(known) + np.isfinite(ends).sum(axis=0)
            miou = (known.sum() + np.nan_to_num(ends).sum(axis=0)) / np.maximum(num_known, 1)
            if miou.max() > miou[chosen[c]]:
                chosen[c] = miou.argmax()
        if (chosen == before).all():
            break
    return chosen


def miou_at(counts: ThresholdCounts, chosen: np.ndarray) -> float:
    """mIoU with the thresholds of these grid indices, (K,), one per class."""
    pixels = _pixels(counts)
    rows = np.arange(len(chosen))
    iou = pixels.iou_of_classes()[rows, chosen]
    iou[0] = pixels.iou_of_background(
        pixels.background_won[rows, chosen].sum(), pixels.won[rows, chosen].sum()
    )
    return mean_defined(iou)


def _pixels(counts: ThresholdCounts) -> _Pixels:
    background_won, won = above(counts.background_won), above(counts.winner)
    # Images without a map: no threshold makes them anything but background.
    background_won[0] = won[0] = 0
    return _Pixels(
        correct=above(counts.winner_correct),
        won=won,
        background_won=background_won,
        annotated=counts.annotated,
    )
