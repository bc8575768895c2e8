"""Stages that train the networks of the systems, such as train_encoder and train_classifier."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from slams_ray import storage
from slams_ray.config import PipelineConfig
from slams_ray.data.source import TRAIN, VAL
from slams_ray.stages.prepare import PreparedData
from slams_ray.stages.stage import (
    Attempt,
    Outcome,
    Result,
    StageContext,
    is_finished,
    run_stage,
)
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


@dataclass(frozen=True, kw_only=True)
class SystemTraining:
    """Training of one network of a system, or the network itself where it is not trained.

    Attributes:
        seed: random seed.
        needed: finished stages whose checkpoints are needed, by name.
        labels: read together with the images; None reads the images alone.
    """

    stage: NetworkStage
    seed: int
    data: PreparedData
    needed: Mapping[str, Result]
    labels: PixelLabels | None = None

    def run(self, context: StageContext) -> Result:
        """Trains the network, unless it is finished."""
        work = self._write if isinstance(self.stage, FixedNetwork) else self._train
        return run_stage(
            context, self.stage.stage, self._settings, self._inputs, partial(work, context)
        )

    def is_finished(self, context: StageContext) -> bool:
        """Whether the network is kept from an earlier run."""
        return is_finished(context, self.stage.stage, self._settings, self._inputs)

    @property
    def _settings(self) -> dict[str, Any]:
        settings = network_settings(self.stage.config)
        if isinstance(self.stage, NetworkTraining):
            settings |= {"seed": self.seed, "backbone": backbone_settings(self.stage.backbone)}
        return settings

    @property
    def _inputs(self) -> dict[str, str]:
        inputs = {"prepare": self.data.images_digest(TRAIN, VAL)}
        inputs |= {stage: result.record.fingerprint for stage, result in self.needed.items()}
        return inputs if self.labels is None else inputs | {"pixel_labels": self.labels.digest}

    def _train(self, context: StageContext, attempt: Attempt) -> Outcome:
        training, labels = self.stage, self.labels
        assert isinstance(training, NetworkTraining)
        checkpoints = {s: storage.read_bytes(r.path(MODEL_NAME)) for s, r in self.needed.items()}
        this = TaskToTrain(
            label=training.label,
            task=training.make_task(self.data.description.class_names, checkpoints),
            config=training.config.training,
            seed=self.seed,
            more_sources=[] if labels is None else [labels.columns],
        )
        outcome = train(context, this, self.data, attempt)
        return replace(outcome, warnings=training.warnings(outcome.notes[LAST], outcome.metrics))

    def _write(self, context: StageContext, attempt: Attempt) -> Outcome:
        assert isinstance(self.stage, FixedNetwork)
        path = storage.join(attempt.output_dir, MODEL_NAME)
        storage.write_bytes(path, self.stage.make(self.data.description.class_names))
        attempt.run.log_file(path, "checkpoint")
        return Outcome(num_rows=0, notes={"num_steps": 0})


def map_networks(config: PipelineConfig, finished: Mapping[str, Result]) -> dict[str, MapNetwork]:
    """Returns system -> the network that makes its maps, for the systems that have one."""
    stages = {name: SYSTEMS[name].map_stage for name in config.systems}
    return {
        name: MapNetwork(trained=finished[stage], max_logit=SYSTEMS[name].max_logit(config))
        for name, stage in stages.items()
        if stage is not None
    }
