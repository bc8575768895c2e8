"""How a stage trains one network: the part the four trainings share."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from slams_ray import storage
from slams_ray.artifacts import to_plain
from slams_ray.config import BackboneConfig, TrainingConfig
from slams_ray.data.source import TRAIN, VAL
from slams_ray.networks.backbone import NO_WEIGHTS
from slams_ray.runtime.tracking_address import credentials
from slams_ray.runtime.trainer import fit
from slams_ray.runtime.training_job import TrainingJob
from slams_ray.stages.prepare import PreparedData
from slams_ray.stages.stage import Attempt, Outcome, Result, Workplace
from slams_ray.training.data_loading import ShardColumns
from slams_ray.training.task import Task
from slams_ray.training.training import Training

MODEL_NAME = "model.pt"
LAST = "last_metrics"
"""Note of a training: the last of its step metrics."""
IMAGE_COLUMNS = ("image", "image_labels")


def train(
    place: Workplace,
    label: str,
    task: Task,
    config: TrainingConfig,
    data: PreparedData,
    seed: int,
    attempt: Attempt,
    more_sources: Sequence[ShardColumns] = (),
) -> Outcome:
    """Trains a task on the training shards and leaves model.pt in the attempt's directory.

    Args:
        more_sources: shards read beside the image shards.
    """
    image_columns = ShardColumns(directory=data.images(TRAIN), columns=IMAGE_COLUMNS)
    training = Training(
        task=task,
        config=config,
        shard_rows=data.shard_rows(TRAIN),
        sources=[image_columns, *more_sources],
        val_names=data.names(VAL),
        val_sources=[ShardColumns(directory=data.images(VAL), columns=IMAGE_COLUMNS)],
        seed=seed,
    )
    training.check_workers(place.compute.train_workers)
    # Built here once and dropped: bad weights end the stage now, not after a worker's restarts.
    training.build()
    result = fit(
        TrainingJob(
            label=label,
            task=training,
            output_dir=attempt.output_dir,
            num_steps=training.num_steps,
            batch_size=config.batch_size,
            checkpoint_every_steps=config.checkpoint_every_steps,
            log_every_steps=config.log_every_steps,
            seed=seed,
            num_workers=place.compute.train_workers,
            min_workers=place.compute.min_train_workers,
            num_threads=place.compute.train_threads,
            feed_tasks=place.compute.feed_tasks,
            device=place.compute.device,
            max_failures=place.compute.max_failures,
            tracking_uri=attempt.run.uri,
            run_id=attempt.run.run_id,
            credentials=credentials(),
        )
    )
    attempt.nodes.update(result["nodes"])
    attempt.devices.update(result["devices"])
    attempt.run.log_file(storage.join(attempt.output_dir, MODEL_NAME), "checkpoint")
    history = [{k: v for k, v in point.items() if k != "time"} for point in result["history"]]
    last = history[-1] if history else {}
    metrics = dict(result["metrics"]) | {"loss": last.get("loss", float("nan"))}
    notes = {"num_steps": training.num_steps, LAST: last}
    return Outcome(num_rows=data.num_images(TRAIN), metrics=metrics, notes=notes)


def read_model(result: Result) -> bytes:
    """The checkpoint a training stage left."""
    return storage.read_bytes(result.path(MODEL_NAME))


_NO_RESULT = ("checkpoint_every_steps", "log_every_steps")
"""Training settings that change what is seen of a training and not what comes of it."""


def resolve_weights(backbone: BackboneConfig) -> BackboneConfig:
    """The backbone with its weights file as an absolute path: workers have another directory."""
    is_file = backbone.weights != NO_WEIGHTS and "_Weights." not in backbone.weights
    return replace(backbone, weights=storage.absolute(backbone.weights)) if is_file else backbone


def training_settings(config: Any) -> dict[str, Any]:
    """What a trained network depends on: a weights file by its content, not by its place."""
    settings = to_plain(config)
    settings["training"] = {k: v for k, v in settings["training"].items() if k not in _NO_RESULT}
    if "backbone" in settings:
        settings["backbone"]["weights"] = weights_identity(settings["backbone"]["weights"])
    return settings


def weights_identity(weights: str) -> str:
    """The SHA-256 of a weights file; the name of torchvision's weights, or none, as it is."""
    if not storage.exists(weights):
        return weights
    return "sha256:" + hashlib.sha256(storage.read_bytes(weights)).hexdigest()
