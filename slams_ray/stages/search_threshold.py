"""Stage search_threshold: the mIoU of every background threshold, and a choice.

One pass of integer counts serves any number of thresholds. Trials that need more than counting (CRF
in the loop, kernels, confident pairs) are a search of their own over the same shards.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np

from slams_ray import storage
from slams_ray.artifacts import to_plain
from slams_ray.config import ThresholdConfig
from slams_ray.data.source import TRAIN
from slams_ray.data.stored_maps import CAM, METHODS, SLAMS
from slams_ray.figures.canvas import to_png
from slams_ray.figures.scores import threshold_figure
from slams_ray.runtime.shards import ShardInput, ShardJob, run_shards
from slams_ray.seeds.label_free import CriterionSums
from slams_ray.seeds.shard_work import COUNTS, CRITERIA, CountMapper, unpack
from slams_ray.seeds.threshold import ThresholdCounts, ThresholdCurve, threshold_curve
from slams_ray.stages.infer_activation import activations_dir
from slams_ray.stages.prepare import PreparedData
from slams_ray.stages.stage import Attempt, Outcome, Result, Workplace, run_stage
from slams_ray.stages.threshold_choice import (
    ClassThresholds,
    LabelFree,
    choose,
    choose_without_masks,
    class_threshold_warnings,
    learn_class_thresholds,
)

STAGE = "search_threshold"
COUNTS_DIR = "counts"
THRESHOLD_NAME = "threshold.json"
CURVE_NAME = "threshold_curve.png"


@dataclass(frozen=True, kw_only=True)
class _Counted:
    """Sums over the training split, by method (CAM and SLAMs).

    Attributes:
        num_scored: images with a mask; 0 where all masks are 255 everywhere.
        halves: counts of two disjoint halves of the images with a mask.
        criteria: sums for the label-free criteria.
        curves: empty where nothing could be scored.
    """

    num_scored: int
    halves: Mapping[str, Sequence[ThresholdCounts]]
    criteria: Mapping[str, CriterionSums]
    curves: Mapping[str, ThresholdCurve]


def run(
    place: Workplace, config: ThresholdConfig, data: PreparedData, activations: Result
) -> Result:
    inputs = {
        "prepare": data.scores_digest(TRAIN),
        "infer_activation": activations.record.fingerprint,
    }
    return run_stage(
        place,
        STAGE,
        to_plain(config),
        inputs,
        partial(_work, config, data, activations),
    )


def chosen_threshold(result: Result, method: str) -> float:
    """The background threshold a finished search chose for CAM or SLAMs."""
    return float(_read(result)["background_threshold"][method])


def class_offsets(result: Result, method: str) -> tuple[float, ...]:
    """(K,) what a finished search adds to its own threshold for each class; empty for nothing.

    They hold for the threshold of `chosen_threshold` and for no other.
    """
    found = _read(result)["per_class"].get(method)
    return tuple(found["offsets"]) if found and found["applied"] else ()


def read_curves(result: Result) -> dict[str, ThresholdCurve]:
    """Method -> curve of a finished search; empty where nothing could be scored."""

    def array(values: list[Any]) -> np.ndarray:
        return np.array(values, np.float64)  # None becomes nan

    curves = _read(result)["curves"].items()
    return {m: ThresholdCurve(**{k: array(v) for k, v in c.items()}) for m, c in curves}


def label_free_choices(result: Result, method: str = SLAMS) -> dict[str, dict[str, float]]:
    """Criterion -> background_threshold, and regret where there are masks."""
    return dict(_read(result)["label_free"][method])


def _read(result: Result) -> dict[str, Any]:
    return json.loads(storage.read_bytes(result.path(THRESHOLD_NAME)))


def _work(
    config: ThresholdConfig, data: PreparedData, activations: Result, attempt: Attempt
) -> Outcome:
    counted = _count(config, data, activations, attempt)
    free = {
        m: choose_without_masks(counted.criteria[m], counted.criteria[CAM], counted.curves.get(m))
        for m in METHODS
    }
    chosen, how = choose(config, counted.curves, free)
    by_class = {
        m: learn_class_thresholds(counted.halves[m], chosen[m], how)
        for m in counted.curves
        if config.per_class
    }
    content = {
        "split": TRAIN,
        "num_scored_images": counted.num_scored,
        "background_threshold": chosen,
        "how": how,
        "label_free": free,
        "per_class": {m: asdict(found) for m, found in by_class.items()},
        "curves": {m: _curve_to_plain(c) for m, c in counted.curves.items()},
    }
    path = storage.join(attempt.output_dir, THRESHOLD_NAME)
    storage.write_bytes(path, json.dumps(content, indent=1).encode())
    attempt.run.log_file(path, "threshold")
    metrics = _track(attempt, counted.curves, free) | _class_metrics(by_class)
    return Outcome(
        num_rows=counted.num_scored,
        metrics=metrics | {"background_threshold": chosen[SLAMS]},
        notes={"how": how, "per_class": {m: found.reason for m, found in by_class.items()}},
        warnings=class_threshold_warnings(config, by_class),
    )


def _count(
    config: ThresholdConfig, data: PreparedData, activations: Result, attempt: Attempt
) -> _Counted:
    """One pass over the activations of the training split."""
    num_categories = len(data.description.class_names)
    job = ShardJob(
        label=STAGE,
        names=data.names(TRAIN),
        inputs={
            "images": ShardInput(
                directory=data.images(TRAIN), columns=("image_id", "image", "mask")
            ),
            "activations": ShardInput(
                directory=activations_dir(activations.output_dir),
                columns=("image_id", "height", "width", "image_labels", CAM, SLAMS),
            ),
        },
        output_dir=storage.join(attempt.output_dir, COUNTS_DIR),
        fingerprint=attempt.fingerprint,
        nodes=attempt.nodes,
        devices=attempt.devices,
        fingerprints=attempt.shard_fingerprints(data.contents(TRAIN)),
        earlier=attempt.earlier_shards(COUNTS_DIR),
        make_work=partial(CountMapper, num_categories, config.num_thresholds),
    )
    no_counts = ThresholdCounts.zeros(num_categories, config.num_thresholds)
    halves = {m: [no_counts, no_counts] for m in METHODS}
    criteria = {m: CriterionSums.zeros(config.num_thresholds) for m in METHODS}
    num_scored = 0
    for _, summary in run_shards(job):
        num_scored += summary["num_rows"]
        for m in METHODS:
            criteria[m] = criteria[m] + unpack(CriterionSums, summary[CRITERIA][m])
            for half, packed in enumerate(summary[COUNTS][m]):
                halves[m][half] = halves[m][half] + unpack(ThresholdCounts, packed)
    counts = {m: first + second for m, (first, second) in halves.items()}
    # A mask that is all 255 scores nothing.
    has_truth = counts[SLAMS].annotated.sum() > 0
    return _Counted(
        num_scored=num_scored if has_truth else 0,
        halves=halves,
        criteria=criteria,
        curves={m: threshold_curve(counts[m]) for m in METHODS} if has_truth else {},
    )


def _class_metrics(by_class: Mapping[str, ClassThresholds]) -> dict[str, float]:
    """What thresholds per class bring on images they were not learnt on."""
    metrics = {}
    for method, found in by_class.items():
        metrics[f"{method}_per_class_miou"] = found.miou
        metrics[f"{method}_per_class_common_miou"] = found.common_miou
    return metrics


def _track(
    attempt: Attempt,
    curves: Mapping[str, ThresholdCurve],
    free: Mapping[str, LabelFree],
) -> dict[str, float]:
    """Curves as step metrics (step = grid index) and as a figure; returns the best scores."""
    if not curves:
        return {}
    for method, curve in curves.items():
        for index in range(len(curve.thresholds)):
            attempt.run.log_metrics(
                {
                    f"threshold_{method}/miou": curve.miou[index],
                    f"threshold_{method}/foreground_precision": curve.foreground_precision[index],
                    f"threshold_{method}/foreground_recall": curve.foreground_recall[index],
                },
                index,
            )
    path = storage.join(attempt.output_dir, CURVE_NAME)
    storage.write_bytes(path, to_png(threshold_figure(curves, free[SLAMS])))
    attempt.run.log_file(path)
    scores = {f"{method}_seed_miou": curve.best_miou for method, curve in curves.items()}
    for method, curve in curves.items():
        scores[f"{method}_best_threshold"] = curve.best_threshold
        scores[f"{method}_threshold_area"] = curve.area
        scores[f"{method}_seed_precision"] = float(curve.foreground_precision[curve.best_index])
        scores[f"{method}_seed_recall"] = float(curve.foreground_recall[curve.best_index])
        for criterion, choice in free[method].items():
            scores[f"{method}_regret_{criterion}"] = choice["regret"]
    return scores


def _curve_to_plain(curve: ThresholdCurve) -> dict[str, Any]:
    """JSON form: nan becomes null."""

    def plain(values: np.ndarray) -> Any:
        rounded = values.round(6).astype(object)
        rounded[~np.isfinite(values)] = None
        return rounded.tolist()

    return {name: plain(value) for name, value in vars(curve).items()}
