"""Stage search_threshold: scores every background threshold and chooses one.

One pass of integer counts scores any number of thresholds.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from slams_ray import storage
from slams_ray.artifacts import to_plain
from slams_ray.config import ThresholdConfig
from slams_ray.data.source import TRAIN
from slams_ray.figures.canvas import to_png
from slams_ray.figures.scores import threshold_figure
from slams_ray.runtime.shards import ShardInput, ShardJob, run_shards
from slams_ray.seeds.label_free import CriterionSums
from slams_ray.seeds.shard_work import COUNTS, CRITERIA, CountMapper, unpack
from slams_ray.seeds.threshold import ThresholdCounts, ThresholdCurve, threshold_curve
from slams_ray.stages.infer_activation import activations_dir
from slams_ray.stages.prepare import PreparedData
from slams_ray.stages.stage import Attempt, Outcome, Result, StageContext, run_stage
from slams_ray.stages.threshold_choice import LabelFree, choose, choose_without_masks
from slams_ray.systems.registry import titles

STAGE = "search_threshold"
COUNTS_DIR = "counts"
THRESHOLD_NAME = "threshold.json"
CURVE_NAME = "threshold_curve.png"
RANGE_POINTS = 0.01
"""The range of thresholds reported holds those within one point of the best mIoU."""


@dataclass(frozen=True, kw_only=True)
class Refined:
    """Maps of one system that a refinement has changed.

    Attributes:
        step: name of the refinement; metrics are named after it.
    """

    step: str
    system: str


@dataclass(frozen=True, kw_only=True)
class _Counted:
    """Sums over the training split.

    Attributes:
        num_scored: number of images with a mask; 0 if all masks are 255 everywhere.
        criteria: system -> sums of the label-free criteria.
        curves: system -> threshold curve; empty if nothing can be scored.
    """

    num_scored: int
    criteria: Mapping[str, CriterionSums]
    curves: Mapping[str, ThresholdCurve]


def run(
    context: StageContext,
    config: ThresholdConfig,
    data: PreparedData,
    activations: Result,
    systems: Sequence[str],
    refined: Refined | None = None,
) -> Result:
    """Chooses a threshold for each system.

    Args:
        refined: the refinement the maps went through; None for maps as inferred.
    """
    inputs = {
        "prepare": data.scores_digest(TRAIN),
        activations.record.stage: activations.record.fingerprint,
    }
    stage = STAGE if refined is None else f"{STAGE}_{refined.step}"
    work = partial(_work, config, data, activations, systems, refined)
    return run_stage(context, stage, to_plain(config), inputs, work)


def chosen_threshold(result: Result, system: str) -> float:
    """Returns the background threshold that a finished search chose for a system."""
    return float(_read(result)["background_threshold"][system])


def read_curves(result: Result) -> dict[str, ThresholdCurve]:
    """Returns system -> curve of a finished search; empty if nothing could be scored."""

    def array(values: list[Any]) -> np.ndarray:
        return np.array(values, np.float64)  # None becomes nan

    curves = _read(result)["curves"].items()
    return {name: ThresholdCurve(**{k: array(v) for k, v in c.items()}) for name, c in curves}


def label_free_choices(result: Result, system: str) -> dict[str, dict[str, float]]:
    """Returns criterion -> background_threshold, and regret if there are masks."""
    return dict(_read(result)["label_free"][system])


def _read(result: Result) -> dict[str, Any]:
    return json.loads(storage.read_bytes(result.path(THRESHOLD_NAME)))


def _work(
    config: ThresholdConfig,
    data: PreparedData,
    activations: Result,
    systems: Sequence[str],
    refined: Refined | None,
    attempt: Attempt,
) -> Outcome:
    counted = _count(config, data, activations, systems, attempt)
    free = choose_without_masks(counted.criteria, counted.curves)
    chosen, how = choose(config, counted.curves, free)
    content = {
        "split": TRAIN,
        "num_scored_images": counted.num_scored,
        "background_threshold": chosen,
        "how": how,
        "label_free": free,
        "curves": {name: _curve_to_plain(c) for name, c in counted.curves.items()},
    }
    path = storage.join(attempt.output_dir, THRESHOLD_NAME)
    storage.write_bytes(path, json.dumps(content, indent=1).encode())
    attempt.run.log_file(path, "threshold")
    if counted.curves:
        _track_curves(attempt, counted.curves, free[systems[-1]])
    if refined is None:
        metrics = _scores(counted.curves, free, "seed")
        metrics |= {f"{name}_background_threshold": value for name, value in chosen.items()}
    else:
        own = {name: c for name, c in counted.curves.items() if name == refined.system}
        metrics = _scores(own, free, refined.step)
        name = f"{refined.system}_{refined.step}_background_threshold"
        metrics |= {name: chosen[refined.system]}
    return Outcome(num_rows=counted.num_scored, metrics=metrics, notes={"how": how})


def _count(
    config: ThresholdConfig,
    data: PreparedData,
    activations: Result,
    systems: Sequence[str],
    attempt: Attempt,
) -> _Counted:
    """Counts in one pass over the activations of the training split."""
    num_all_classes = len(data.description.class_names)
    job = ShardJob(
        label=STAGE,
        names=data.names(TRAIN),
        inputs={
            "images": ShardInput(directory=data.images(TRAIN), columns=("image_id", "mask")),
            "activations": ShardInput(
                directory=activations_dir(activations.output_dir),
                columns=("image_id", "height", "width", "image_labels", *systems),
            ),
        },
        output_dir=storage.join(attempt.output_dir, COUNTS_DIR),
        fingerprint=attempt.fingerprint,
        nodes=attempt.nodes,
        devices=attempt.devices,
        fingerprints=attempt.shard_fingerprints(data.contents(TRAIN)),
        earlier=attempt.earlier_shards(COUNTS_DIR),
        make_work=partial(CountMapper, systems, num_all_classes, config.num_thresholds),
    )
    no_counts = ThresholdCounts.zeros(num_all_classes, config.num_thresholds)
    counts = dict.fromkeys(systems, no_counts)
    criteria = dict.fromkeys(systems, CriterionSums.zeros(config.num_thresholds))
    num_scored = 0
    for _, summary in run_shards(job):
        num_scored += summary["num_rows"]
        for name in systems:
            counts[name] += unpack(ThresholdCounts, summary[COUNTS][name])
            criteria[name] += unpack(CriterionSums, summary[CRITERIA][name])
    # Masks that are 255 everywhere score nothing.
    has_truth = counts[systems[0]].annotated.sum() > 0
    return _Counted(
        num_scored=num_scored if has_truth else 0,
        criteria=criteria,
        curves={name: threshold_curve(c) for name, c in counts.items()} if has_truth else {},
    )


def _track_curves(
    attempt: Attempt, curves: Mapping[str, ThresholdCurve], label_free: LabelFree
) -> None:
    """Logs curves as step metrics (step = grid index) and as a figure.

    Args:
        label_free: label-free choices for the last system, which the figure marks.
    """
    for name, curve in curves.items():
        for index in range(len(curve.thresholds)):
            attempt.run.log_metrics(
                {
                    f"threshold_{name}/miou": curve.miou[index],
                    f"threshold_{name}/foreground_precision": curve.foreground_precision[index],
                    f"threshold_{name}/foreground_recall": curve.foreground_recall[index],
                },
                index,
            )
    path = storage.join(attempt.output_dir, CURVE_NAME)
    figure = threshold_figure(curves, titles(curves), label_free)
    storage.write_bytes(path, to_png(figure))
    attempt.run.log_file(path)


def _scores(
    curves: Mapping[str, ThresholdCurve], label_free: Mapping[str, LabelFree], what: str
) -> dict[str, float]:
    """Returns the scores of every system. mIoUs come first, because tables show them.

    Args:
        what: names the scored labels: seed, or the refinement of the maps.
    """
    scores = {f"{name}_{what}_miou": curve.best_miou for name, curve in curves.items()}
    for name, curve in curves.items():
        prefix = name if what == "seed" else f"{name}_{what}"
        scores[f"{prefix}_best_threshold"] = curve.best_threshold
        scores[f"{prefix}_mean_miou"] = curve.mean_miou
        scores[f"{prefix}_threshold_range"] = curve.width_within(RANGE_POINTS)
        scores[f"{name}_{what}_precision"] = float(curve.foreground_precision[curve.best_index])
        scores[f"{name}_{what}_recall"] = float(curve.foreground_recall[curve.best_index])
        for criterion, choice in label_free[name].items():
            scores[f"{prefix}_regret_{criterion}"] = choice["regret"]
    return scores


def _curve_to_plain(curve: ThresholdCurve) -> dict[str, Any]:
    """Returns a curve as plain values for JSON; nan becomes null."""

    def plain(values: np.ndarray) -> Any:
        rounded = values.round(6).astype(object)
        rounded[~np.isfinite(values)] = None
        return rounded.tolist()

    return {name: plain(value) for name, value in vars(curve).items()}
