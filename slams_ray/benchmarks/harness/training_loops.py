"""Trainings of a recipe in two loops: ours, and that of a plain PyTorch script.

The script's loop does not use our training code, so that it is an independent reference.
"""

import copy
from collections.abc import Iterator
from dataclasses import replace
from itertools import cycle, islice
from typing import TypeVar

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from slams_ray.benchmarks.harness.shards import Shards
from slams_ray.config import (
    ClassifierConfig,
    EncoderConfig,
    PipelineConfig,
    SegmentationConfig,
    TrainingConfig,
)
from slams_ray.networks.checkpoint import dump_network
from slams_ray.networks.weights import NO_WEIGHTS
from slams_ray.refinement.walk.training import AffinityTask
from slams_ray.segmentation.training import SegmentationTask
from slams_ray.systems.cam import ClassifierTask
from slams_ray.systems.slams.activation import ActivationTask
from slams_ray.systems.slams.encoder import EncoderTask
from slams_ray.training.data_loading import ShardColumns, iterate_rows
from slams_ray.training.optimisation import build_optimizer, mixed_precision
from slams_ray.training.task import Task
from slams_ray.training.training import Training

SOURCE_COLUMNS = ("image", "image_labels", "pseudo_label")
SEED = 0
LEARNING_RATE = 1e-6
"""Random weights diverge at the learning rates of some recipes."""
Part = TypeVar("Part", EncoderConfig, ClassifierConfig, SegmentationConfig)


def make_trainings(config: PipelineConfig, shards: Shards) -> dict[str, Training]:
    """Returns name -> training of a recipe, with random weights."""
    names = shards.description.class_names
    torch.manual_seed(SEED)
    encoder = EncoderTask(_without_weights(config.encoder), names)
    classifier = ClassifierTask(_without_weights(config.classifier), names)
    frozen = [
        dump_network(task.build().network, task.architecture, names)
        for task in (encoder, classifier)
    ]
    backbone = _without_weights(config.classifier).backbone
    activation = ActivationTask(config.activation, backbone, names, *frozen)
    tasks: dict[str, tuple[Task, TrainingConfig]] = {
        "encoder": (encoder, config.encoder.training),
        "classifier": (classifier, config.classifier.training),
        "activation": (activation, config.activation.training),
        "affinity": (
            AffinityTask(config.affinity.training, backbone, names, config.affinity.radius),
            config.affinity.training,
        ),
        "segmentation": (
            SegmentationTask(_without_weights(config.segmentation), names),
            config.segmentation.training,
        ),
    }
    return {
        name: Training(
            task=task,
            config=replace(training, learning_rate=LEARNING_RATE),
            shard_rows=[(shard, shards.images_per_shard) for shard in shards.names],
            sources=[ShardColumns(directory=shards.directory, columns=SOURCE_COLUMNS)],
            seed=SEED,
        )
        for name, (task, training) in tasks.items()
    }


def _without_weights(part: Part) -> Part:
    return replace(part, backbone=replace(part.backbone, weights=NO_WEIGHTS))


def with_foreground(training: Training, weight: float) -> Training:
    """Returns the training of the activation network with another weight of the foreground loss."""
    task = copy.copy(training.task)
    assert isinstance(task, ActivationTask)
    task.config = replace(task.config, losses=replace(task.config.losses, foreground=weight))
    return replace(training, task=task)


def lasting(training: Training, num_steps: int) -> Training:
    """Returns the training with epochs changed so that it has num_steps steps."""
    num_images = sum(rows for _, rows in training.shard_rows)
    epochs = num_steps * training.config.batch_size / num_images
    return replace(training, config=replace(training.config, epochs=epochs))


class _Images(Dataset[dict[str, np.ndarray]]):
    """Dataset of a plain script: encoded rows in memory, decoded and augmented on access."""

    def __init__(self, training: Training) -> None:
        names = [name for name, _ in training.shard_rows]
        self.rows = list(iterate_rows(names, training.sources))
        self.sampler = training.task.sampler

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        rng = np.random.default_rng()
        filler = self.rows[int(rng.integers(len(self.rows)))]
        return self.sampler.sample(self.rows[index], rng, filler)


class BareLoop:
    """Loop of a plain script: DataLoader, forward, backward, update. Nothing else is computed.

    Its networks are ours, with BatchNorm merged where it is frozen, and in the same precision.
    Torch computes their layers.
    """

    def __init__(self, training: Training, num_data_loading_tasks: int) -> None:
        torch.manual_seed(SEED)
        self.module = training.task.build().train()
        self.optimizer = build_optimizer(self.module.network, training.config)
        self.loader = DataLoader(
            _Images(training),
            batch_size=training.config.batch_size,
            shuffle=True,
            drop_last=True,
            num_workers=num_data_loading_tasks,
            persistent_workers=num_data_loading_tasks > 0,
        )
        self.batches = self._batches()
        self.config = training.config
        self.step = 0

    def _batches(self) -> Iterator[dict[str, torch.Tensor]]:
        while True:
            yield from self.loader

    def run(self, num_steps: int) -> None:
        for _ in range(num_steps):
            draw = np.random.default_rng((SEED, self.step))
            self.module.step = self.step
            with mixed_precision(self.config, torch.device("cpu")):
                loss, _ = self.module(next(self.batches), draw, False)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.step += 1


def planned_batches(training: Training) -> Iterator[dict[str, torch.Tensor]]:
    """Yields the batches of a training with one worker."""
    size = training.config.batch_size
    waiting: dict[str, np.ndarray] = {}
    reader = training.loader
    for loading_task in training.loading_tasks(0, 1, 0):
        read = reader(loading_task)
        waiting = {n: np.concatenate([waiting[n], v]) if waiting else v for n, v in read.items()}
        while len(next(iter(waiting.values()))) >= size:
            batch = training.complete({name: values[:size] for name, values in waiting.items()})
            yield {name: torch.from_numpy(values) for name, values in batch.items()}
            waiting = {name: values[size:] for name, values in waiting.items()}


class OurLoop:
    """Our sampling and optimisation step, in this process without Ray."""

    def __init__(self, training: Training) -> None:
        torch.manual_seed(SEED)
        self.training = training
        self.module = training.build().train()
        self.optimizer = training.optimizer(self.module)
        self.batches = planned_batches(training)
        self.step = 0

    def load_ahead(self, num_batches: int) -> None:
        """Loads batches now, and uses them in turn, so that steps are measured without loading."""
        self.batches = cycle(list(islice(self.batches, num_batches)))

    def run(self, num_steps: int) -> None:
        for _ in range(num_steps):
            batch = next(self.batches)
            total = self.training.num_steps
            self.training.step(self.module, self.optimizer, batch, self.step, total)
            self.step += 1
