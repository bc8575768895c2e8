"""Trains one network in a stage."""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from slams_ray import storage
from slams_ray.artifacts import to_plain
from slams_ray.config import BackboneConfig, TrainingConfig
from slams_ray.config.networks import FixedConfig, TrainedConfig
from slams_ray.data.source import TRAIN, VAL
from slams_ray.runtime.tracking_address import credentials
from slams_ray.runtime.trainer import fit
from slams_ray.runtime.training_job import TrainingJob
from slams_ray.stages.prepare import PreparedData
from slams_ray.stages.stage import Attempt, Outcome, StageContext
from slams_ray.training.data_loading import ShardColumns
from slams_ray.training.task import Task
from slams_ray.training.training import Training

logger = logging.getLogger(__name__)

MODEL_NAME = "model.pt"
LAST = "last_metrics"
"""Note with the last step metrics of a training."""
IMAGE_COLUMNS = ("image", "image_labels")


@dataclass(frozen=True, kw_only=True)
class TaskToTrain:
    """A task and how it is trained.

    Attributes:
        label: name of the training in progress lines.
        seed: random seed.
        more_sources: further shards, which are read together with the image shards.
    """

    label: str
    task: Task
    config: TrainingConfig
    seed: int
    more_sources: Sequence[ShardColumns] = ()


def train(
    context: StageContext, this: TaskToTrain, data: PreparedData, attempt: Attempt
) -> Outcome:
    """Trains a task on the training shards, and writes model.pt into the attempt's directory."""
    config, compute = this.config, context.compute
    image_columns = ShardColumns(directory=data.images(TRAIN), columns=IMAGE_COLUMNS)
    training = Training(
        task=this.task,
        config=config,
        shard_rows=data.shard_rows(TRAIN),
        sources=[image_columns, *this.more_sources],
        val_names=data.names(VAL),
        val_sources=[ShardColumns(directory=data.images(VAL), columns=IMAGE_COLUMNS)],
        seed=this.seed,
    )
    training.check_workers(compute.train_workers)
    # Built once to check it: bad weights fail here at once, and not after restarts of a worker.
    training.build()
    result = fit(
        TrainingJob(
            label=this.label,
            training=training,
            output_dir=attempt.output_dir,
            num_steps=training.num_steps,
            batch_size=config.batch_size,
            checkpoint_every_steps=config.checkpoint_every_steps,
            log_every_steps=config.log_every_steps,
            seed=this.seed,
            num_workers=compute.train_workers,
            min_workers=compute.min_train_workers,
            num_threads=compute.train_threads,
            data_loading_tasks=compute.data_loading_tasks,
            device=compute.device,
            deterministic=compute.deterministic,
            cuda_graphs=compute.cuda_graphs,
            max_failures=compute.max_failures,
            tracking_uri=attempt.run.uri,
            run_id=attempt.run.run_id,
            system_metrics=context.tracking.system_metrics,
            credentials=credentials() if context.tracking.system_metrics else {},
        )
    )
    attempt.nodes.update(result["nodes"])
    attempt.devices.update(result["devices"])
    attempt.run.log_file(storage.join(attempt.output_dir, MODEL_NAME), "checkpoint")
    history = [{k: v for k, v in point.items() if k != "time"} for point in result["history"]]
    last = history[-1] if history else {}
    metrics = dict(result["metrics"]) | {"loss": last.get("loss", float("nan"))}
    notes = {"num_steps": training.num_steps, LAST: last, "precision": result["precision"]}
    if result["graph_problem"]:
        logger.warning(
            "%s: %s. Its steps took longer; compute.cuda_graphs False tries none",
            this.label,
            result["graph_problem"],
        )
    return Outcome(num_rows=data.num_images(TRAIN), metrics=metrics, notes=notes)


_NO_RESULT = ("accumulation_steps", "checkpoint_every_steps", "log_every_steps")
"""Training settings that do not change the result."""


def network_settings(config: TrainedConfig | FixedConfig) -> dict[str, Any]:
    """Returns the settings that a network depends on, without those of its backbone.

    A digest replaces the path of a weights file.
    """
    settings = to_plain(config)
    if settings.get("weights") is not None:
        settings["weights"] = _weights_identity(settings["weights"])
    if "training" in settings:
        kept = {k: v for k, v in settings["training"].items() if k not in _NO_RESULT}
        settings["training"] = kept
    settings.pop("backbone", None)
    # The labels themselves are an input of the training.
    settings.pop("pseudo_labels_of", None)
    return settings


def backbone_settings(backbone: BackboneConfig) -> dict[str, Any]:
    """Returns the settings of a backbone. A digest replaces the path of a weights file."""
    return to_plain(backbone) | {"weights": _weights_identity(backbone.weights)}


def _weights_identity(weights: str) -> str:
    """Returns the SHA-256 digest of a weights file; other names are returned unchanged."""
    if not storage.exists(weights):
        return weights
    return "sha256:" + hashlib.sha256(storage.read_bytes(weights)).hexdigest()
