"""Stage evaluate: scores the segmentation network against the masks of the scored split."""

import json
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from slams_ray import storage
from slams_ray.artifacts import to_plain
from slams_ray.config import SegmentationConfig
from slams_ray.data.schema import DatasetDescription
from slams_ray.figures.canvas import to_png
from slams_ray.figures.scores import class_iou_figure
from slams_ray.metrics import segmentation_scores
from slams_ray.runtime.shards import ShardInput, ShardJob, sum_shards
from slams_ray.segmentation.shard_work import REFINED_CONFUSION
from slams_ray.stages.infer_activation import inference_pool
from slams_ray.stages.prepare import PreparedData
from slams_ray.stages.stage import Attempt, Outcome, Result, StageContext, run_stage
from slams_ray.stages.training import MODEL_NAME
from slams_ray.workers.segmentation import make_evaluator

STAGE = "evaluate"
PREDICTIONS = "predictions"
METRICS_NAME = "metrics.json"
CLASS_IOU_NAME = "per_class_iou.png"


def run(
    context: StageContext, config: SegmentationConfig, data: PreparedData, network: Result
) -> Result:
    """Predicts every image of the scored split, and scores those that have a mask."""
    inputs = {
        "prepare": data.scores_digest(data.scored_role),
        "train_segmentation": network.record.fingerprint,
    }
    images = {"split": data.scored_role, "max_side_px": data.max_side_px}
    settings = to_plain(config.inference) | images
    if config.crf.iterations:
        settings["crf"] = to_plain(config.crf)
    work = partial(_work, context, config, data, network)
    return run_stage(context, STAGE, settings, inputs, work)


def predictions_dir(output_dir: str) -> str:
    """Returns the directory of prediction shards in an output directory."""
    return storage.join(output_dir, PREDICTIONS)


def _work(
    context: StageContext,
    config: SegmentationConfig,
    data: PreparedData,
    network: Result,
    attempt: Attempt,
) -> Outcome:
    role = data.scored_role
    job = ShardJob(
        label=STAGE,
        names=data.names(role),
        inputs={
            "images": ShardInput(directory=data.images(role), columns=("image_id", "image", "mask"))
        },
        output_dir=predictions_dir(attempt.output_dir),
        fingerprint=attempt.fingerprint,
        nodes=attempt.nodes,
        devices=attempt.devices,
        make_work=partial(make_evaluator, network.path(MODEL_NAME), config, data.description),
        fingerprints=attempt.shard_fingerprints(data.contents(role)),
        earlier=attempt.earlier_shards(PREDICTIONS),
        pool=inference_pool(context.compute),
    )
    counts = ["num_rows", "num_scored", "confusion"]
    if config.crf.iterations:
        counts.append(REFINED_CONFUSION)
    totals = sum_shards(job, counts)
    num_scored, confusion = totals["num_scored"], totals["confusion"]
    metrics: dict[str, float] = {}
    warnings: list[str] = []
    # Masks can be absent, or 255 everywhere.
    if confusion.sum():
        metrics = _publish(attempt, totals, data.description, role)
        warnings = missed_classes(confusion, data.description.class_names)
    return Outcome(
        num_rows=totals["num_rows"],
        metrics=metrics,
        notes={"split": role, "num_scored_images": num_scored},
        warnings=warnings,
    )


def missed_classes(confusion: np.ndarray, class_names: Sequence[str]) -> list[str]:
    """Returns a warning where the network finds no pixel of a class that is in the masks.

    Args:
        confusion: (K, K) pixels by true and predicted class.
    """
    is_there = confusion.sum(axis=1)[1:] > 0
    missed = np.flatnonzero(is_there & (confusion.diagonal()[1:] == 0))
    if not len(missed):
        return []
    return [
        f"the network finds no pixel of {len(missed)} of {is_there.sum()} classes in the masks, "
        f"such as {class_names[1 + missed[0]]}: look at its pseudo labels in the montage, and "
        "train longer where they are good"
    ]


def _publish(
    attempt: Attempt, totals: Mapping[str, Any], description: DatasetDescription, role: str
) -> dict[str, float]:
    """Writes metrics.json, logs table and figure, and returns the scalar scores."""
    confusion = totals["confusion"]
    scores = segmentation_scores(confusion)
    per_class: list[dict[str, Any]] = [
        {
            "class": name,
            "iou": None if np.isnan(iou) else round(float(iou), 6),
            "annotated_pixels": int(n),
        }
        for name, iou, n in zip(
            description.class_names, scores.iou, confusion.sum(axis=1), strict=True
        )
    ]
    metrics = {
        "segmentation_miou": scores.miou,
        "pixel_accuracy": scores.pixel_accuracy,
        "foreground_precision": scores.foreground_precision,
        "foreground_recall": scores.foreground_recall,
        "num_counted_classes": scores.num_counted_classes,
    }
    if REFINED_CONFUSION in totals:
        metrics["segmentation_crf_miou"] = segmentation_scores(totals[REFINED_CONFUSION]).miou
    content: dict[str, Any] = metrics | {
        "split": role,
        "num_scored_images": totals["num_scored"],
        "per_class": per_class,
        "confusion": confusion.tolist(),
    }
    path = storage.join(attempt.output_dir, METRICS_NAME)
    storage.write_bytes(path, json.dumps(content, indent=1).encode())
    attempt.run.log_table(per_class, "per_class_iou.json")
    attempt.run.log_metrics(
        {f"iou/{row['class']}": row["iou"] for row in per_class if row["iou"] is not None}
    )
    figure_path = storage.join(attempt.output_dir, CLASS_IOU_NAME)
    storage.write_bytes(figure_path, to_png(class_iou_figure(description, scores.iou)))
    attempt.run.log_file(figure_path)
    return metrics


def iou_of_classes(scored: Result) -> dict[str, float]:
    """Returns name of class -> IoU of the network, of the classes that a mask or prediction has."""
    if not scored.record.metrics:
        return {}
    content = json.loads(storage.read_bytes(scored.path(METRICS_NAME)))
    return {row["class"]: row["iou"] for row in content["per_class"] if row["iou"] is not None}
