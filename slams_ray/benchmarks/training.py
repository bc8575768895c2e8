"""The four trainings against a bare PyTorch loop with a DataLoader: images per second."""

import json
import multiprocessing
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from slams_ray import storage
from slams_ray.benchmarks.measure import Row, compare, row
from slams_ray.benchmarks.shards import Shards
from slams_ray.config import PipelineConfig, TrainingConfig
from slams_ray.models.checkpoint import dump_network
from slams_ray.runtime import cluster
from slams_ray.runtime.trainer import fit
from slams_ray.runtime.training_job import TrainingJob
from slams_ray.tasks.activation import ActivationTask
from slams_ray.tasks.classifier import ClassifierTask
from slams_ray.tasks.encoder import EncoderTask
from slams_ray.tasks.feed import ShardColumns, iterate_rows
from slams_ray.tasks.optimisation import build_optimizer
from slams_ray.tasks.segmentation import SegmentationTask
from slams_ray.tasks.training import Training
from slams_ray.tasks.training_module import Task

SOURCE_COLUMNS = ("image", "image_labels", "pseudo_label")
SEED = 0


@dataclass(frozen=True, kw_only=True)
class Windows:
    """How long a training is measured: windows of steps, after some that warm it up."""

    steps_each: int
    number: int
    num_warm: int = 1

    @property
    def num_steps(self) -> int:
        return self.steps_each * (self.num_warm + self.number)


def make_trainings(config: PipelineConfig, shards: Shards) -> dict[str, Training]:
    """The trainings of a recipe with random weights."""
    names = shards.description.class_names
    torch.manual_seed(SEED)
    encoder = EncoderTask(config.encoder, names)
    classifier = ClassifierTask(config.classifier, names)
    frozen = [
        dump_network(task.build().network, task.architecture, names)
        for task in (encoder, classifier)
    ]
    activation = ActivationTask(config.activation, config.classifier.backbone, names, *frozen)
    tasks: dict[str, tuple[Task, TrainingConfig]] = {
        "encoder": (encoder, config.encoder.training),
        "classifier": (classifier, config.classifier.training),
        "activation": (activation, config.activation.training),
        "segmentation": (
            SegmentationTask(config.segmentation, names),
            config.segmentation.training,
        ),
    }
    return {
        name: Training(
            task=task,
            config=training,
            shard_rows=[(shard, shards.images_per_shard) for shard in shards.names],
            sources=[ShardColumns(directory=shards.directory, columns=SOURCE_COLUMNS)],
            seed=SEED,
        )
        for name, (task, training) in tasks.items()
    }


def lasting(training: Training, num_steps: int) -> Training:
    """The same training with as many steps."""
    num_images = sum(rows for _, rows in training.shard_rows)
    epochs = num_steps * training.config.batch_size / num_images
    return replace(training, config=replace(training.config, epochs=epochs))


class _Images(Dataset[dict[str, np.ndarray]]):
    """What a script would write: encoded rows in memory, decoded and augmented on access."""

    def __init__(self, training: Training) -> None:
        names = [name for name, _ in training.shard_rows]
        self.rows = list(iterate_rows(names, training.sources))
        self.task = training.task

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        rng = np.random.default_rng()
        companion = self.rows[int(rng.integers(len(self.rows)))]
        return self.task.sample(self.rows[index], rng, companion)


class BareLoop:
    """A DataLoader and forward, backward, update; nothing is clipped, logged or checked."""

    def __init__(self, training: Training, num_feeders: int) -> None:
        torch.manual_seed(SEED)
        self.module: nn.Module = training.task.build().train()
        network = self.module.get_submodule("network")
        self.optimizer = build_optimizer(network, training.config)
        self.loader = DataLoader(
            _Images(training),
            batch_size=training.config.batch_size,
            shuffle=True,
            drop_last=True,
            num_workers=num_feeders,
            persistent_workers=num_feeders > 0,
        )
        self.batches = self._batches()
        self.step = 0

    def _batches(self) -> Iterator[dict[str, torch.Tensor]]:
        while True:
            yield from self.loader

    def run(self, num_steps: int) -> None:
        for _ in range(num_steps):
            loss, _ = self.module(next(self.batches), self.step)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.step += 1


class OurLoop:
    """Our plan, samples and step, in this process and without Ray."""

    def __init__(self, training: Training) -> None:
        torch.manual_seed(SEED)
        self.training = training
        self.module = training.build().train()
        self.optimizer = training.optimizer(self.module)
        self.batches = self._batches()
        self.step = 0

    def _batches(self) -> Iterator[dict[str, torch.Tensor]]:
        size = self.training.config.batch_size
        waiting: dict[str, np.ndarray] = {}
        for chunk in self.training.chunks(0, 1, 0):
            read = self.training.read(chunk)
            waiting = {
                n: np.concatenate([waiting[n], v]) if waiting else v for n, v in read.items()
            }
            while len(next(iter(waiting.values()))) >= size:
                yield {name: torch.from_numpy(values[:size]) for name, values in waiting.items()}
                waiting = {name: values[size:] for name, values in waiting.items()}

    def run(self, num_steps: int) -> None:
        for _ in range(num_steps):
            batch = next(self.batches)
            total = self.training.num_steps
            self.training.step(self.module, self.optimizer, batch, self.step, total)
            self.step += 1


def step_row(name: str, training: Training, steps_each: int, rounds: int) -> Row:
    """CPU time of our step and feed in one process, against the bare loop in one process."""
    torch.set_num_threads(1)
    # One round more warms up.
    ours = OurLoop(lasting(training, steps_each * (rounds + 1)))
    theirs = BareLoop(training, 0)
    return compare(
        f"training step of {name}, one process",
        lambda: ours.run(steps_each),
        "a bare loop with a DataLoader",
        lambda: theirs.run(steps_each),
        goal=0.95,
        rounds=rounds,
    )


def ray_row(
    name: str,
    training: Training,
    windows: Windows,
    directory: str,
    *,
    num_feeders: int,
    rounds: int,
) -> Row:
    """Images per second of a training through Ray Train and Ray Data, against the bare loop with as
    many processes that feed it; both use all cores of this process.
    """
    # Ray gives its workers a low priority, which on a busy machine would be what is measured.
    os.environ.setdefault("RAY_worker_niceness", "0")
    cluster.connect()
    ratios = []
    for number in range(rounds):
        own = ray_rates(training, windows, storage.join(directory, f"{name}-{number}"), num_feeders)
        path = storage.join(directory, f"{name}-{number}.json")
        other = bare_rates(training, windows, path, num_feeders)
        ratios.append(median(own) / median(other))
    against = f"a bare loop, DataLoader of {num_feeders}"
    return row(f"training of {name} through Ray", against, ratios, goal=0.95)


def ray_rates(
    training: Training, windows: Windows, output_dir: str, num_feeders: int
) -> list[float]:
    """Images per second in each window after the warm ones."""
    result = fit(
        TrainingJob(
            label="benchmark",
            task=lasting(training, windows.num_steps),
            output_dir=output_dir,
            num_steps=windows.num_steps,
            batch_size=training.config.batch_size,
            checkpoint_every_steps=windows.num_steps,
            log_every_steps=windows.steps_each,
            seed=SEED,
            num_workers=1,
            min_workers=None,
            num_threads=None,
            feed_tasks=num_feeders,
            device="cpu",
            max_failures=0,
            tracking_uri="",
            run_id=None,
        )
    )
    points: list[Mapping[str, Any]] = result["history"]
    return [point["images_per_second"] for point in points[windows.num_warm :]]


def bare_rates(training: Training, windows: Windows, path: str, num_feeders: int) -> list[float]:
    """Images per second in each window after the warm ones, of a process of its own."""
    arguments = (training, windows, path, num_feeders, len(os.sched_getaffinity(0)))
    process = multiprocessing.get_context("spawn").Process(target=_bare_process, args=arguments)
    process.start()
    process.join()
    if process.exitcode:
        raise ChildProcessError(f"the bare loop ended {process.exitcode}")
    return json.loads(Path(path).read_bytes())


def _bare_process(
    training: Training, windows: Windows, path: str, num_feeders: int, num_threads: int
) -> None:
    torch.set_num_threads(num_threads)
    loop = BareLoop(training, num_feeders)
    loop.run(windows.steps_each * windows.num_warm)
    rates = []
    for _ in range(windows.number):
        start = time.monotonic()
        loop.run(windows.steps_each)
        images = windows.steps_each * training.config.batch_size
        rates.append(images / (time.monotonic() - start))
    Path(path).write_text(json.dumps(rates))
