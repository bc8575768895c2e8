"""Measures trainings against a bare PyTorch loop with a DataLoader."""

import json
import math
import multiprocessing
import os
import time
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import torch

from slams_ray import storage
from slams_ray.benchmarks.harness.measure import Row, compare, row
from slams_ray.benchmarks.harness.training_loops import (
    SEED,
    BareLoop,
    OurLoop,
    lasting,
    with_foreground,
)
from slams_ray.benchmarks.harness.workers import ray_connection
from slams_ray.config import ComputeConfig
from slams_ray.runtime.allocator import keep_freed_memory
from slams_ray.runtime.cluster import LOADING_TASKS_ON_CPU
from slams_ray.runtime.trainer import fit
from slams_ray.runtime.training_job import TrainingJob
from slams_ray.systems.slams.activation import ActivationTask
from slams_ray.training.training import Training

LONGEST_ACTIVATION_STEP = 1.6
"""Longest step of SLAMs' activation network, in steps of the CAM classifier."""


@dataclass(frozen=True, kw_only=True)
class Windows:
    """Measured windows of a training, in steps, and the warm-up windows before them."""

    steps_each: int
    number: int
    num_warm: int = 1

    @property
    def num_steps(self) -> int:
        return self.steps_each * (self.num_warm + self.number)


def step_row(name: str, training: Training, steps_each: int, rounds: int) -> Row:
    """Returns the row of our step and data loading against the bare loop, both in this process."""
    _compute_as_a_training()
    # One more round is the warm-up.
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


def foreground_row(training: Training, steps_each: int, rounds: int) -> Row:
    """Returns the row of an activation step without the category-foreground loss, against with it.

    Args:
        training: training of the activation network. Its foreground weight is replaced.
    """
    _compute_as_a_training()
    without, with_loss = (
        OurLoop(lasting(with_foreground(training, weight), steps_each * (rounds + 1)))
        for weight in (0.0, 1.0)
    )
    return compare(
        "activation step, foreground loss of weight 0",
        lambda: without.run(steps_each),
        "the same step with that loss",
        lambda: with_loss.run(steps_each),
        goal=1.3,
        rounds=rounds,
    )


def precision_row(name: str, training: Training, steps_each: int, rounds: int) -> Row:
    """Returns the row of a step in mixed precision against one in float32, batches in memory."""
    _compute_as_a_training()
    mixed, full = (
        OurLoop(lasting(one, steps_each * (rounds + 1)))
        for one in (training, training.without_amp())
    )
    for loop in (mixed, full):
        loop.load_ahead(steps_each)
    return compare(
        f"training step of {name}, mixed precision",
        lambda: mixed.run(steps_each),
        "the same step in float32",
        lambda: full.run(steps_each),
        goal=1.0,
        rounds=rounds,
    )


def activation_row(activation: Training, classifier: Training, steps_each: int, rounds: int) -> Row:
    """Returns the row of an activation step against a classifier step, with batches in memory."""
    _compute_as_a_training()
    assert isinstance(activation.task, ActivationTask)
    # In all windows the same number of steps has the equivariance loss.
    every = activation.task.config.equivariance_every
    steps_each = math.ceil(steps_each / every) * every
    ours, theirs = (
        OurLoop(lasting(training, steps_each * (rounds + 1)))
        for training in (activation, classifier)
    )
    for loop in (ours, theirs):
        loop.load_ahead(steps_each)
    return compare(
        "activation step, batches in memory",
        lambda: ours.run(steps_each),
        "a classifier step",
        lambda: theirs.run(steps_each),
        goal=1 / LONGEST_ACTIVATION_STEP,
        rounds=rounds,
    )


def _compute_as_a_training() -> None:
    """Uses one thread, and keeps freed memory, for the rest of this process.

    Rows through Ray start other processes.
    """
    torch.set_num_threads(1)
    keep_freed_memory()


def ray_row(
    name: str,
    training: Training,
    windows: Windows,
    directory: str,
    *,
    compute: ComputeConfig,
    rounds: int,
) -> Row:
    """Returns the row of a training through Ray against the bare loop, in images per second.

    Both have the computing threads and the data-loading processes that `compute` sets. Without such
    a process, ours may load in another thread, and the bare loop loads between its steps.
    """
    num_tasks = compute.data_loading_tasks
    if num_tasks is None:
        num_tasks = LOADING_TASKS_ON_CPU
    compute = replace(compute, device="cpu", data_loading_tasks=num_tasks)
    ratios = []
    with ray_connection():
        for number in range(rounds):
            own_dir = storage.join(directory, f"{name}-{number}")
            points = ray_points(training, windows, own_dir, compute)
            own = [point["images_per_second"] for point in points]
            path = storage.join(directory, f"{name}-{number}.json")
            ratios.append(median(own) / median(bare_rates(training, windows, path, compute)))
    against = f"a bare loop, DataLoader of {num_tasks}"
    return row(f"training of {name} through Ray", against, ratios, goal=0.95)


def ray_points(
    training: Training, windows: Windows, output_dir: str, compute: ComputeConfig
) -> list[dict[str, float]]:
    """Runs a training through Ray, and returns what it logs at the end of each measured window."""
    result = fit(
        TrainingJob(
            label="benchmark",
            training=lasting(training, windows.num_steps),
            output_dir=output_dir,
            num_steps=windows.num_steps,
            batch_size=training.config.batch_size,
            checkpoint_every_steps=windows.num_steps,
            log_every_steps=windows.steps_each,
            seed=SEED,
            num_workers=1,
            min_workers=None,
            num_threads=compute.train_threads,
            data_loading_tasks=compute.data_loading_tasks,
            device=compute.device,
            deterministic=compute.deterministic,
            cuda_graphs=compute.cuda_graphs,
            max_failures=0,
            tracking_uri="",
            run_id=None,
        )
    )
    return result["history"][windows.num_warm :]


def bare_rates(
    training: Training, windows: Windows, path: str, compute: ComputeConfig
) -> list[float]:
    """Runs the bare loop in a process of its own; returns images per second of measured windows."""
    num_threads = compute.train_threads or len(os.sched_getaffinity(0))
    arguments = (training, windows, path, compute.data_loading_tasks, num_threads)
    process = multiprocessing.get_context("spawn").Process(target=_bare_process, args=arguments)
    process.start()
    process.join()
    if process.exitcode:
        raise ChildProcessError(f"the bare loop ended {process.exitcode}")
    return json.loads(Path(path).read_bytes())


def _bare_process(
    training: Training, windows: Windows, path: str, num_data_loading_tasks: int, num_threads: int
) -> None:
    torch.set_num_threads(num_threads)
    loop = BareLoop(training, num_data_loading_tasks)
    loop.run(windows.steps_each * windows.num_warm)
    rates = []
    for _ in range(windows.number):
        start = time.monotonic()
        loop.run(windows.steps_each)
        images = windows.steps_each * training.config.batch_size
        rates.append(images / (time.monotonic() - start))
    Path(path).write_text(json.dumps(rates))
