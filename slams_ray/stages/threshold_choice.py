"""Which background threshold a finished count pass leads to, with masks and without."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from slams_ray.config import ThresholdConfig
from slams_ray.seeds.class_thresholds import choose_class_thresholds, miou_at
from slams_ray.seeds.label_free import (
    CRITERIA,
    CriterionSums,
    choose_threshold,
    match_foreground,
    regret,
)
from slams_ray.seeds.threshold import ThresholdCounts, ThresholdCurve, threshold_curve

LabelFree = Mapping[str, Mapping[str, float]]
"""Criterion -> background_threshold, and regret where there are masks."""


BEST_MIOU = "highest mIoU of the seeds over the scored training images"
"""How a threshold was chosen that per-class offsets may be added to."""


@dataclass(frozen=True, kw_only=True)
class ClassThresholds:
    """Thresholds learnt class by class on one half of the scored images.

    Attributes:
        offsets: (K,) the learnt thresholds minus the common threshold they are added to.
        miou: on the other half.
        common_miou: on the other half, with the one threshold that is best on the first.
        applied: whether later stages add the offsets.
        reason: why they do, or do not.
    """

    offsets: list[float]
    miou: float
    common_miou: float
    applied: bool
    reason: str


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
        return best, BEST_MIOU
    criterion = config.without_masks
    if criterion == "fallback" or not all(label_free.values()):
        reason = "threshold.fallback, because no training image has a mask to score on"
        return dict.fromkeys(label_free, config.fallback), reason
    chosen = {m: free[criterion]["background_threshold"] for m, free in label_free.items()}
    return chosen, f"label-free criterion {criterion}, because no training image has a mask"


def learn_class_thresholds(
    halves: Sequence[ThresholdCounts], common: float, how: str
) -> ClassThresholds:
    """Learns a threshold per class on the first half and evaluates them on the second.

    The offsets are applied only where the second half confirms them, and only to a common
    threshold that was chosen by mIoU as they were.

    Args:
        halves: counts of two disjoint halves of the scored images.
        common: threshold in [0, 1] that the offsets would be added to.
        how: how that threshold was chosen, as `choose` says it.
    """
    learnt, held_out = halves
    curve = threshold_curve(learnt)
    chosen = choose_class_thresholds(learnt, curve.best_index)
    offsets: list[Any] = (curve.thresholds[chosen] - common).round(6).tolist()
    miou = miou_at(held_out, chosen)
    common_miou = miou_at(held_out, np.full(len(learnt.annotated), curve.best_index))
    applied, reason = _whether_applied(miou, common_miou, how)
    return ClassThresholds(
        offsets=offsets, miou=miou, common_miou=common_miou, applied=applied, reason=reason
    )


def _whether_applied(miou: float, common_miou: float, how: str) -> tuple[bool, str]:
    if how != BEST_MIOU:
        return False, f"the common threshold is not the best by mIoU, it is chosen by: {how}"
    scores = f"{miou:.4f} mIoU against {common_miou:.4f} with one threshold"
    if miou > common_miou:
        return True, f"they gain on the images they were not learnt on: {scores}"
    return False, f"they do not gain on the images they were not learnt on: {scores}"


def class_threshold_warnings(
    config: ThresholdConfig, by_class: Mapping[str, ClassThresholds]
) -> list[str]:
    """One sentence per method whose offsets are asked for and not applied.

    Args:
        by_class: method -> what was learnt; empty where nothing could be scored.
    """
    if not config.per_class:
        return []
    if not by_class:
        return ["threshold.per_class is set, but no training image has a mask to learn from"]
    return [
        f"thresholds per class of {method} are not applied: {found.reason}"
        for method, found in by_class.items()
        if not found.applied
    ]
