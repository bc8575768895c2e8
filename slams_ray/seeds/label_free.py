"""Choosing a background threshold without masks.

Two criteria, from one pass of histograms over the stored maps. Bimodality takes the threshold that
separates the scores of an image best. Matching takes the threshold that leaves as much foreground
as CAM's most bimodal one. Where masks exist each criterion is scored by its regret, the mIoU of the
best threshold minus the mIoU at its choice.
"""

from dataclasses import dataclass

import numpy as np

from slams_ray.seeds.threshold import ThresholdCurve, score_bins, threshold_grid

MIN_FOREGROUND, MAX_FOREGROUND = 0.03, 0.9
"""Share of labelled images that may be foreground at a choice. Beyond it a criterion says nothing
about objects."""
VARIANCE_EPSILON = 1e-9


@dataclass(frozen=True, kw_only=True)
class CriterionSums:
    """Sums over images, for each threshold; additive over shards.

    Attributes:
        bimodality: (T,) between-class share of the variance of winning scores (Otsu 1979).
        foreground: (T,) share of foreground.
        num_images: images with at least one map.
    """

    bimodality: np.ndarray
    foreground: np.ndarray
    num_images: int

    @classmethod
    def zeros(cls, num_thresholds: int) -> "CriterionSums":
        nothing = np.zeros(num_thresholds)
        return cls(bimodality=nothing, foreground=nothing, num_images=0)

    def __add__(self, other: "CriterionSums") -> "CriterionSums":
        return CriterionSums(**{k: v + getattr(other, k) for k, v in vars(self).items()})


def criterion_sums(scores: np.ndarray, num_thresholds: int) -> CriterionSums:
    """What the criteria say of every threshold for one image.

    Args:
        scores: (N,) float32 in [0, 1], the highest activation of each pixel.
    """
    bins = score_bins(scores, num_thresholds)
    values = scores.astype(float)
    num_above = _above(bins, None, num_thresholds)
    sum_above = _above(bins, values, num_thresholds)
    between = _between_variance(num_above, sum_above, values)
    return CriterionSums(
        bimodality=between / max(values.var(), VARIANCE_EPSILON),
        foreground=num_above / len(scores),
        num_images=1,
    )


def _above(bins: np.ndarray, weights: np.ndarray | None, num_thresholds: int) -> np.ndarray:
    """(T,) sum of the weights, or number of pixels, above each threshold."""
    histogram = np.bincount(bins, weights, num_thresholds + 1)
    return histogram[::-1].cumsum()[::-1][1:].astype(float)


def _between_variance(
    num_above: np.ndarray, sum_above: np.ndarray, values: np.ndarray
) -> np.ndarray:
    """(T,) variance of values that lies between foreground and background."""
    num_below = len(values) - num_above
    mean_above = sum_above / np.maximum(num_above, 1)
    mean_below = (values.sum() - sum_above) / np.maximum(num_below, 1)
    return num_above * num_below / len(values) ** 2 * (mean_above - mean_below) ** 2


def most_bimodal(sums: CriterionSums) -> float:
    """The threshold of the highest bimodality that leaves foreground and background.

    Raises:
        ValueError: no image had a map.
    """
    if not sums.num_images:
        raise ValueError("no image has a class label, so there is no map to choose a threshold on")
    return _best_allowed(sums, sums.bimodality)


def match_foreground(sums: CriterionSums, guide: CriterionSums) -> float:
    """The threshold that leaves as much foreground as the guide's most bimodal one leaves there.

    Scores of CAM have two modes, with the best threshold between them. Those of SLAMs need not:
    what a class often occurs with may form a third. How much foreground there is CAM then tells
    better, where it is, SLAMs.

    Raises:
        ValueError: no image had a map.
    """
    at = most_bimodal(guide)
    wanted = guide.foreground[np.argmin(abs(threshold_grid(len(guide.foreground)) - at))]
    return _best_allowed(sums, -abs(sums.foreground - wanted))


def _best_allowed(sums: CriterionSums, values: np.ndarray) -> float:
    """The middle of the thresholds with the highest value, among those that leave objects."""
    foreground = sums.foreground / sums.num_images
    allowed = (foreground >= MIN_FOREGROUND) & (foreground <= MAX_FOREGROUND)
    if allowed.any():
        values = np.where(allowed, values, -np.inf)
    best = np.flatnonzero(values >= values.max())
    return float(threshold_grid(len(values))[best[len(best) // 2]])


def regret(curve: ThresholdCurve, threshold: float) -> float:
    """mIoU of the best threshold minus mIoU at this one."""
    return curve.best_miou - float(curve.miou[np.argmin(abs(curve.thresholds - threshold))])
