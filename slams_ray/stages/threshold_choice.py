"""Which background threshold a finished count pass leads to, with masks and without."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from slams_ray.config import ThresholdConfig
from slams_ray.core.class_thresholds import choose_class_thresholds, miou_at
from slams_ray.core.label_free import (
    CRITERIA,
    CriterionSums,
    choose_threshold,
    match_foreground,
    regret,
)
from slams_ray.core.threshold import ThresholdCounts, ThresholdCurve, threshold_curve

LabelFree = Mapping[str, Mapping[str, float]]
"""Criterion -> background_threshold, and regret where there are masks."""


@dataclass(frozen=True, kw_only=True)
class ClassThresholds:
    """Thresholds learnt class by class on one half of the scored images.

    Attributes:
        offsets: (K,) added to the common threshold.
        miou: on the other half.
        common_miou: on the other half, with the one threshold that is best on the first.
    """

    offsets: list[float]
    miou: float
    common_miou: float


def choose_without_masks(
    sums: CriterionSums, cam: CriterionSums, curve: ThresholdCurve | None
) -> LabelFree:
    """Criterion -> its threshold, and its regret where there are masks to tell it.

    Args:
        cam: the same of CAM's maps of the same images.
    """
    if not sums.num_images:
        return {}
    thresholds = {"cam_foreground": match_foreground(sums, cam)}
    thresholds |= {criterion: choose_threshold(sums, criterion) for criterion in CRITERIA}
    choices = {name: {"background_threshold": value} for name, value in thresholds.items()}
    if curve is not None:
        for name, value in thresholds.items():
            choices[name]["regret"] = regret(curve, value)
    return choices


def choose(
    config: ThresholdConfig,
    curves: Mapping[str, ThresholdCurve],
    label_free: Mapping[str, LabelFree],
) -> tuple[dict[str, float], str]:
    """The threshold of each method, and how it was chosen.

    Args:
        curves: method -> curve; empty where nothing could be scored.
        label_free: method -> choices without masks.
    """
    if config.fixed is not None:
        return dict.fromkeys(label_free, config.fixed), "threshold.fixed"
    if curves:
        best = {m: curve.best_threshold for m, curve in curves.items()}
        return best, "highest mIoU of the seeds over the scored training images"
    criterion = config.without_masks
    if criterion == "fallback" or not all(label_free.values()):
        reason = "threshold.fallback, because no training image has a mask to score on"
        return dict.fromkeys(label_free, config.fallback), reason
    chosen = {m: free[criterion]["background_threshold"] for m, free in label_free.items()}
    return chosen, f"label-free criterion {criterion}, because no training image has a mask"


def learn_class_thresholds(halves: Sequence[ThresholdCounts]) -> ClassThresholds:
    """Learns on the first half, judges on the second."""
    learnt, judged = halves
    curve = threshold_curve(learnt)
    common = np.full(len(learnt.annotated), curve.best_index)
    chosen = choose_class_thresholds(learnt, curve.best_index)
    offsets: list[Any] = (curve.thresholds[chosen] - curve.best_threshold).round(6).tolist()
    return ClassThresholds(
        offsets=offsets, miou=miou_at(judged, chosen), common_miou=miou_at(judged, common)
    )
