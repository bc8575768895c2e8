"""Choosing a background threshold without masks.

Three criteria judge every threshold by what the seed does to an image, a fourth takes the amount
of foreground from other maps of the same images. None needs ground truth, all come from one pass
of histograms over the stored maps. Where masks exist each is judged by its regret, the mIoU of the
best threshold minus the mIoU at its choice.
"""

from dataclasses import dataclass

import numpy as np

from slams_ray.seeds.threshold import ThresholdCurve, score_bins, threshold_grid

STABILITY_STEP = 0.05
"""Half the change of the threshold under which a stable label map stays as it is."""
MIN_FOREGROUND, MAX_FOREGROUND = 0.03, 0.9
"""Share of labelled images that may be foreground at a choice: at the ends a criterion says nothing
about objects."""
VARIANCE_EPSILON = 1e-9


@dataclass(frozen=True, kw_only=True)
class CriterionSums:
    """Sums over images of what each criterion says of each threshold; additive over shards.

    Attributes:
        bimodality: (T,) between-class share of the variance of winning scores (Otsu 1979).
        stability: (T,) share of the seed that stays when the threshold moves by STABILITY_STEP
            (as the stability of maximally stable extremal regions, Matas et al. 2002).
        colour_separation: (T,) between-class share of the variance of colour, foreground against
            background.
        foreground: (T,) share of foreground.
        num_images: images with at least one map.
    """

    bimodality: np.ndarray
    stability: np.ndarray
    colour_separation: np.ndarray
    foreground: np.ndarray
    num_images: int

    @classmethod
    def zeros(cls, num_thresholds: int) -> "CriterionSums":
        names = ("bimodality", "stability", "colour_separation", "foreground")
        return cls(num_images=0, **{name: np.zeros(num_thresholds) for name in names})

    def __add__(self, other: "CriterionSums") -> "CriterionSums":
        return CriterionSums(**{k: v + getattr(other, k) for k, v in vars(self).items()})


CRITERIA = ("bimodality", "stability", "colour_separation")


def criterion_sums(scores: np.ndarray, colours: np.ndarray, num_thresholds: int) -> CriterionSums:
    """What the criteria say of every threshold for one image.

    Args:
        scores: (N,) float32 in [0, 1], the highest activation of each pixel.
        colours: (N, 3) float, the pixels' colours on any scale.
    """
    bins = score_bins(scores, num_thresholds)
    size = num_thresholds + 1

    def above(weights: np.ndarray | None = None) -> np.ndarray:
        histogram = np.bincount(bins, weights, size)
        return histogram[::-1].cumsum()[::-1][1:].astype(float)

    num_above = above()
    step = max(1, round(STABILITY_STEP * (num_thresholds - 1)))
    padded = np.pad(num_above, step, mode="edge")
    wider, narrower = padded[: -2 * step], padded[2 * step :]
    values = np.concatenate([scores[:, None].astype(float), colours], axis=1)
    between = np.stack([_between_variance(num_above, above(column), column) for column in values.T])
    total = values.var(axis=0)
    return CriterionSums(
        bimodality=between[0] / max(total[0], VARIANCE_EPSILON),
        stability=narrower / np.maximum(wider, 1),
        colour_separation=between[1:].sum(axis=0) / max(total[1:].sum(), VARIANCE_EPSILON),
        foreground=num_above / len(scores),
        num_images=1,
    )


def _between_variance(
    num_above: np.ndarray, sum_above: np.ndarray, values: np.ndarray
) -> np.ndarray:
    """(T,) variance of values that lies between foreground and background."""
    num_below = len(values) - num_above
    mean_above = sum_above / np.maximum(num_above, 1)
    mean_below = (values.sum() - sum_above) / np.maximum(num_below, 1)
    return num_above * num_below / len(values) ** 2 * (mean_above - mean_below) ** 2


def choose_threshold(sums: CriterionSums, criterion: str) -> float:
    """The threshold a criterion likes best, among those that leave foreground and background.

    Raises:
        ValueError: no image had a map.
    """
    if not sums.num_images:
        raise ValueError("no image has a class label, so there is no map to choose a threshold on")
    return _best_allowed(sums, getattr(sums, criterion))


def match_foreground(sums: CriterionSums, guide: CriterionSums) -> float:
    """The threshold that leaves as much foreground as the guide's most bimodal one leaves there.

    Scores of CAM have two modes, with the best threshold between them. Those of SLAMs need not:
    what a class often occurs with may form a third. How much foreground there is CAM then tells
    better, where it is, SLAMs.

    Raises:
        ValueError: no image had a map.
    """
    at = choose_threshold(guide, "bimodality")
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
