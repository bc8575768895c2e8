"""Chooses the background threshold from counts, with masks or without."""

from collections.abc import Mapping

from slams_ray.config import ThresholdConfig
from slams_ray.seeds.label_free import CriterionSums, match_foreground, most_bimodal, regret
from slams_ray.seeds.threshold import ThresholdCurve
from slams_ray.systems.registry import BASELINE

LabelFree = Mapping[str, Mapping[str, float]]
"""Criterion -> background_threshold, and regret if there are masks."""

BEST_MIOU = "highest mIoU of the seeds over the scored training images"
MATCHED, BIMODAL = "cam_foreground", "bimodality"


def choose_without_masks(
    criteria: Mapping[str, CriterionSums], curves: Mapping[str, ThresholdCurve]
) -> dict[str, LabelFree]:
    """Returns system -> criterion -> its threshold, and its regret if there are masks.

    Args:
        criteria: system -> sums over the images. Foreground can be matched only if the baseline is
            one of the systems. Its maps guide the refined maps of another system as inferred: a
            walk moves the border of an object, and hardly its area.
        curves: system -> threshold curve; empty if nothing could be scored.
    """
    guide = criteria.get(BASELINE)
    return {name: _choices(sums, guide, curves.get(name)) for name, sums in criteria.items()}


def _choices(
    sums: CriterionSums, guide: CriterionSums | None, curve: ThresholdCurve | None
) -> LabelFree:
    if not sums.num_images:
        return {}
    thresholds = {} if guide is None else {MATCHED: match_foreground(sums, guide)}
    thresholds[BIMODAL] = most_bimodal(sums)
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
    """Returns the threshold of each system, and a sentence on how it was chosen.

    Args:
        curves: system -> threshold curve; empty if nothing could be scored.
        label_free: system -> choices without masks.
    """
    if config.fixed is not None:
        return dict.fromkeys(label_free, config.fixed), "threshold.fixed"
    if curves:
        return {name: curve.best_threshold for name, curve in curves.items()}, BEST_MIOU
    criterion: str = config.without_masks
    if criterion == MATCHED and not all(MATCHED in free for free in label_free.values()):
        criterion = BIMODAL
    if criterion == "fallback" or not all(criterion in free for free in label_free.values()):
        reason = "threshold.fallback, because no training image has a mask to score on"
        return dict.fromkeys(label_free, config.fallback), reason
    chosen = {m: free[criterion]["background_threshold"] for m, free in label_free.items()}
    return chosen, f"label-free criterion {criterion}, because no training image has a mask"
