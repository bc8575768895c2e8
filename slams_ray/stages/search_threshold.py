"""Stage search_threshold: the mIoU of every background threshold, and a choice.

One pass of integer counts serves any number of thresholds. Trials that need more than counting (CRF
in the loop, kernels, confident pairs) are a search of their own over the same shards.
"""

import json
from functools import partial
from typing import Any

import numpy as np

from slams_ray import storage
from slams_ray.artifacts import to_plain
from slams_ray.config import ThresholdConfig
from slams_ray.core.threshold import ThresholdCounts, ThresholdCurve, threshold_curve
from slams_ray.data.source import TRAIN
from slams_ray.figures import threshold_figure, to_png
from slams_ray.mappers.count import CountMapper, counts_from_lists
from slams_ray.mappers.infer import CAM, METHODS, SLAMS
from slams_ray.runtime.shards import ShardInput, ShardJob, run_shards
from slams_ray.stages.infer_activation import activations_dir
from slams_ray.stages.prepare import PreparedData
from slams_ray.stages.stage import Attempt, Outcome, Result, Workplace, run_stage

STAGE = "search_threshold"
THRESHOLD_NAME = "threshold.json"
CURVE_NAME = "threshold_curve.png"


def run(
    place: Workplace, config: ThresholdConfig, data: PreparedData, activations: Result
) -> Result:
    inputs = {"prepare": data.fingerprint, "infer_activation": activations.record.fingerprint}
    return run_stage(
        place,
        STAGE,
        to_plain(config),
        inputs,
        partial(_work, config, data, activations),
    )


def chosen_threshold(result: Result, method: str) -> float:
    """The background threshold a finished search chose for CAM or SLAMs."""
    content = json.loads(storage.read_bytes(result.path(THRESHOLD_NAME)))
    return float(content["background_threshold"][method])


def _work(
    config: ThresholdConfig, data: PreparedData, activations: Result, attempt: Attempt
) -> Outcome:
    job = ShardJob(
        label=STAGE,
        names=data.names(TRAIN),
        inputs={
            "images": ShardInput(directory=data.images(TRAIN), columns=("image_id", "mask")),
            "activations": ShardInput(
                directory=activations_dir(activations.output_dir),
                columns=("image_id", "height", "width", "image_labels", CAM, SLAMS),
            ),
        },
        output_dir=storage.join(attempt.output_dir, "counts"),
        fingerprint=attempt.fingerprint,
        make_work=partial(
            CountMapper,
            len(data.description.class_names),
            config.num_thresholds,
        ),
    )
    summaries = run_shards(job)
    # A mask that is all 255 scores nothing.
    num_pixels = sum(sum(s[SLAMS]["annotated"]) for s in summaries)
    num_scored = sum(s["num_rows"] for s in summaries) if num_pixels else 0
    choice: dict[str, Any] = {"split": TRAIN, "num_scored_images": num_scored}
    metrics: dict[str, float] = {}
    if num_scored:
        zeros = ThresholdCounts.zeros(len(data.description.class_names), config.num_thresholds)
        curves = {
            method: threshold_curve(sum((counts_from_lists(s[method]) for s in summaries), zeros))
            for method in METHODS
        }
        metrics = _track(attempt, curves)
        choice |= {
            "background_threshold": {m: c.best_threshold for m, c in curves.items()},
            "how": "highest mIoU of the seeds over the scored training images",
            "curves": {m: _curve_to_plain(c) for m, c in curves.items()},
        }
    else:
        choice |= {
            "background_threshold": dict.fromkeys(METHODS, config.fallback),
            "how": "threshold.fallback, because no training image has a mask to score on",
        }
    if config.fixed is not None:
        choice |= {
            "background_threshold": dict.fromkeys(METHODS, config.fixed),
            "how": "threshold.fixed",
        }
    path = storage.join(attempt.output_dir, THRESHOLD_NAME)
    storage.write_bytes(path, json.dumps(choice, indent=1).encode())
    attempt.run.log_file(path, "threshold")
    metrics["background_threshold"] = choice["background_threshold"][SLAMS]
    return Outcome(num_rows=num_scored, metrics=metrics, notes={"how": choice["how"]})


def _track(attempt: Attempt, curves: dict[str, ThresholdCurve]) -> dict[str, float]:
    """Curves as step metrics (step = grid index) and as a figure; returns the best scores."""
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
    storage.write_bytes(path, to_png(threshold_figure(curves)))
    attempt.run.log_file(path)
    scores = {}
    for method, curve in curves.items():
        scores[f"{method}_seed_miou"] = curve.best_miou
        scores[f"{method}_best_threshold"] = curve.best_threshold
        scores[f"{method}_threshold_area"] = curve.area
        scores[f"{method}_seed_precision"] = float(curve.foreground_precision[curve.best_index])
        scores[f"{method}_seed_recall"] = float(curve.foreground_recall[curve.best_index])
    return scores


def _curve_to_plain(curve: ThresholdCurve) -> dict[str, Any]:
    """JSON form: nan becomes null."""

    def plain(values: np.ndarray) -> Any:
        rounded = values.round(6).astype(object)
        rounded[~np.isfinite(values)] = None
        return rounded.tolist()

    return {name: plain(value) for name, value in vars(curve).items()}
