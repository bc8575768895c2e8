"""Chooses a background threshold without masks (docs/method.md, Seeds and thresholds).

Two criteria need one pass of histograms over the stored maps. Bimodality takes the threshold that
best separates the scores of an image. Matching takes the threshold with as much foreground as CAM
has at its most bimodal threshold. Where masks exist, each criterion is scored by its regret: the
mIoU of the best threshold minus the mIoU of its choice.
"""

from dataclasses import dataclass

import numpy as np

from slams_ray.seeds.threshold import ThresholdCurve, score_bins, threshold_grid

MIN_FOREGROUND, MAX_FOREGROUND = 0.03, 0.9
"""Limits of the share of foreground in labelled images. Thresholds outside them are not chosen."""
VARIANCE_EPSILON = 1e-9


@dataclass(frozen=True, kw_only=True)
class CriterionSums:
    """Sums over images for each threshold; they can be added over shards.

    Attributes:
        bimodality: (T,) share of the variance of winning scores that is between foreground and
            background (Otsu 1979).
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
    """Returns the sums of one image.

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
    """Returns the (T,) sum of weights, or number of pixels, above each threshold."""
    histogram = np.bincount(bins, weights, num_thresholds + 1)
    return histogram[::-1].cumsum()[::-1][1:].astype(float)


def _between_variance(
    num_above: np.ndarray, sum_above: np.ndarray, values: np.ndarray
) -> np.ndarray:
    """Returns the (T,) variance between foreground and background."""
    num_below = len(values) - num_above
    mean_above = sum_above / np.maximum(num_above, 1)
    mean_below = (values.sum() - sum_above) / np.maximum(num_below, 1)
    return num_above * num_below / len(values) ** 2 * (mean_above - mean_below) ** 2


def most_bimodal(sums: CriterionSums) -> float:
    """Returns the threshold with the highest bimodality, within the limits of foreground.

    Raises:
        ValueError: no image has a map.
    """
    if not sums.num_images:
        raise ValueError("no image has a class label, so there is no map to choose a threshold on")
    return _best_allowed(sums, sums.bimodality)


def match_foreground(sums: CriterionSums, guide: CriterionSums) -> float:
    """Returns the threshold with as much foreground as the guide has at its most bimodal one.

    Scores of CAM have two modes, and the best threshold is between them. Scores of SLAMs can have a
    third mode, from things that often accompany a class. CAM then gives a better estimate of how
    much foreground there is, and SLAMs of where it is.

    Raises:
        ValueError: no image has a map.
    """
    guide_threshold = most_bimodal(guide)
    grid = threshold_grid(len(guide.foreground))
    wanted = guide.foreground[np.argmin(abs(grid - guide_threshold))]
    return _best_allowed(sums, -abs(sums.foreground - wanted))


def _best_allowed(sums: CriterionSums, values: np.ndarray) -> float:
    """Returns the middle of the thresholds with the highest value, within the limits of foreground.

    The limits are ignored if no threshold is within them.
    """
    foreground = sums.foreground / sums.num_images
    allowed = (foreground >= MIN_FOREGROUND) & (foreground <= MAX_FOREGROUND)
    if allowed.any():
        values = np.where(allowed, values, -np.inf)
    best = np.flatnonzero(values >= values.max())
    return float(threshold_grid(len(values))[best[len(best) // 2]])


def regret(curve: ThresholdCurve, threshold: float) -> float:
    """Returns the mIoU of the best threshold minus the mIoU at this one."""
    return curve.best_miou - float(curve.miou[np.argmin(abs(curve.thresholds - threshold))])
