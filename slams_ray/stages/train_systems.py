"""Stages that train the networks of the systems, such as train_encoder and train_classifier."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from slams_ray import storage
from slams_ray.config import PipelineConfig
from slams_ray.data.source import TRAIN, VAL
from slams_ray.stages.prepare import PreparedData
from slams_ray.stages.stage import Attempt, Outcome, Result, StageContext, run_stage
from slams_ray.stages.training import (
    LAST,
    MODEL_NAME,
    TaskToTrain,
    backbone_settings,
    network_settings,
    train,
)
from slams_ray.systems.registry import SYSTEMS
from slams_ray.systems.system import FixedNetwork, NetworkStage, NetworkTraining
from slams_ray.training.data_loading import ShardColumns


@dataclass(frozen=True, kw_only=True)
class MapNetwork:
    """Trained network that makes the maps of a system.

    Attributes:
        trained: stage that trained the network.
        max_logit: value that inference clips higher logits to; None clips nothing.
    """

    trained: Result
    max_logit: float | None

    @property
    def path(self) -> str:
        return self.trained.path(MODEL_NAME)


@dataclass(frozen=True, kw_only=True)
class PixelLabels:
    """Confident labels of the training images.

    Attributes:
        columns: shards of labels, aligned with those of the images.
        digest: digest of the labels.
    """

    columns: ShardColumns
    digest: str


def run(
    context: StageContext,
    training: NetworkStage,
    seed: int,
    data: PreparedData,
    finished: Mapping[str, Result],
    labels: PixelLabels | None = None,
) -> Result:
    """Trains one network of a system, or writes it where it is not trained.

    Args:
        seed: random seed.
        finished: finished stages by name. They include the stages that the training needs.
        labels: read together with the images; None reads the images alone.
    """
    if isinstance(training, FixedNetwork):
        return write(context, training, data)
    assert isinstance(training, NetworkTraining)
    needed = {stage: finished[stage] for stage in training.needs}
    settings = network_settings(training.config) | {"seed": seed}
    settings["backbone"] = backbone_settings(training.backbone)

    def work(attempt: Attempt) -> Outcome:
        checkpoints = {s: storage.read_bytes(r.path(MODEL_NAME)) for s, r in needed.items()}
        task = training.make_task(data.description.class_names, checkpoints)
        this = TaskToTrain(
            label=training.label,
            task=task,
            config=training.config.training,
            seed=seed,
            more_sources=[] if labels is None else [labels.columns],
        )
        outcome = train(context, this, data, attempt)
        return replace(outcome, warnings=training.warnings(outcome.notes[LAST], outcome.metrics))

    inputs = {"prepare": data.images_digest(TRAIN, VAL)}
    inputs |= {stage: result.record.fingerprint for stage, result in needed.items()}
    if labels is not None:
        inputs["pixel_labels"] = labels.digest
    return run_stage(context, training.stage, settings, inputs, work)


def write(context: StageContext, network: FixedNetwork, data: PreparedData) -> Result:
    """Writes the checkpoint of a network that is not trained."""
    class_names = data.description.class_names

    def work(attempt: Attempt) -> Outcome:
        path = storage.join(attempt.output_dir, MODEL_NAME)
        storage.write_bytes(path, network.make(class_names))
        attempt.run.log_file(path, "checkpoint")
        return Outcome(num_rows=0, notes={"num_steps": 0})

    inputs = {"prepare": data.images_digest(TRAIN, VAL)}
    return run_stage(context, network.stage, network_settings(network.config), inputs, work)


def map_networks(config: PipelineConfig, finished: Mapping[str, Result]) -> dict[str, MapNetwork]:
    """Returns system -> the network that makes its maps, for the systems that have one."""
    stages = {name: SYSTEMS[name].map_stage for name in config.systems}
    return {
        name: MapNetwork(trained=finished[stage], max_logit=SYSTEMS[name].max_logit(config))
        for name, stage in stages.items()
        if stage is not None
    }
