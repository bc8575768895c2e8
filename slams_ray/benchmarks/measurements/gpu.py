"""Measures optimizations for GPUs, and the utilisation of a GPU by trainings and inference."""

import gc
import itertools
import math
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pyarrow as pa
import torch

from slams_ray import storage
from slams_ray.benchmarks.harness.busy import check_watchable, watched_gpus
from slams_ray.benchmarks.harness.measure import Row, compare, row
from slams_ray.benchmarks.harness.training_loops import SEED, lasting, planned_batches
from slams_ray.benchmarks.harness.workers import map_by_ray, warm_rate, warm_since
from slams_ray.benchmarks.measurements.inference import Inference, inference_comparison
from slams_ray.benchmarks.measurements.training import Windows, ray_points
from slams_ray.config import ComputeConfig
from slams_ray.errors import ConfigError
from slams_ray.inference.activation_predictor import ActivationPredictor
from slams_ray.inference.precision import inference_dtype
from slams_ray.runtime.pools import share_of_gpu
from slams_ray.stages.infer_activation import COLUMNS
from slams_ray.training.sampling import STEPS_PER_LOADING_TASK
from slams_ray.training.training import Training

BATCHES_HELD = 4
GOAL_BUSY = 0.9
_ALL = "all of the time"


def find_device(kind: str) -> torch.device:
    """Returns the device of a kind, "gpu" or "cpu".

    Raises:
        ConfigError: there is no GPU, or none that can be watched.
    """
    if kind == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise ConfigError(
            "torch finds no GPU on this machine: use a machine with a GPU, or --device cpu"
        )
    check_watchable()
    return torch.device("cuda")


class Steps:
    """Optimisation steps on batches that are already on the device."""

    def __init__(
        self,
        training: Training,
        device: torch.device,
        *,
        channels_last: bool = True,
        compiled: bool = False,
        cuda_graphs: bool = True,
    ) -> None:
        torch.manual_seed(SEED)
        self.training = training
        layout = torch.channels_last if channels_last else torch.contiguous_format
        module = training.build(device.type, cuda_graphs).to(device)
        self.module = module.to(memory_format=layout).train()
        if compiled:
            for network in self.module.children():
                network.compile()
        self.optimizer = training.optimizer(self.module)
        held = itertools.islice(planned_batches(lasting(training, BATCHES_HELD)), BATCHES_HELD)
        self.batches = itertools.cycle([{n: v.to(device) for n, v in b.items()} for b in held])

    def run(self, num_steps: int) -> None:
        for step in range(num_steps):
            batch = next(self.batches)
            self.training.step(self.module, self.optimizer, batch, step, num_steps)


def step_rows(
    name: str, training: Training, device: torch.device, steps_each: int, rounds: int
) -> list[Row]:
    """Returns rows of our training step against steps without one of our optimizations."""
    ours = Steps(training, device)
    seconds = _seconds(lambda: ours.run(steps_each), device)
    others: dict[str, Callable[[], Steps]] = {
        "channels first": lambda: Steps(training, device, channels_last=False)
    }
    if training.is_mixed(device.type):
        others["without autocast"] = lambda: Steps(training.without_amp(), device)
    if device.type == "cuda":
        others["without CUDA graphs"] = lambda: Steps(training, device, cuda_graphs=False)
    rate = steps_each * training.config.batch_size / seconds
    rows = [_rate_row(f"training step of {name}", rate)]
    for by, build in others.items():
        # Only one alternative exists at a time, because more copies may not fit on the GPU.
        other = build()
        rows.append(
            compare(
                f"training step of {name}",
                lambda: ours.run(steps_each),
                by,
                lambda other=other: other.run(steps_each),  # type: ignore[misc]
                goal=1.0,
                rounds=rounds,
                clock=lambda: _now(device),
            )
        )
    return rows


def compiled_row(
    name: str, training: Training, device: torch.device, steps_each: int, rounds: int
) -> Row:
    """Returns the row of a compiled step, without CUDA graphs on both sides.

    It has no goal, because trainings are not compiled.
    """
    # Compilations of other trainings count towards torch's limit of recompilations.
    torch.compiler.reset()
    gc.collect()
    compiled, ours = (
        Steps(training, device, compiled=is_compiled, cuda_graphs=False)
        for is_compiled in (True, False)
    )
    return compare(
        f"training step of {name}, compiled",
        lambda: compiled.run(steps_each),
        "not compiled",
        lambda: ours.run(steps_each),
        goal=0,
        rounds=rounds,
        clock=lambda: _now(device),
    )


def _rate_row(what: str, images_per_second: float) -> Row:
    """Returns a row with images per second in place of a ratio."""
    return row(f"{what}: images per second", "", [images_per_second], goal=0)


def fed_windows(
    training: Training, num_data_loading_tasks: int, steps_each: int, rounds: int
) -> Windows:
    """Returns windows that are long enough to show whether data loading keeps up.

    A wave is the images that all data-loading tasks hold at once. The warm-up takes two waves, the
    measurement `rounds` waves.
    """
    config = training.config
    wave = num_data_loading_tasks * STEPS_PER_LOADING_TASK * config.batch_size
    per_wave = max(1, math.ceil(wave / (steps_each * config.batch_size)))
    return Windows(steps_each=steps_each, number=rounds * per_wave, num_warm=2 * per_wave)


def training_busy_rows(
    name: str,
    training: Training,
    windows: Windows,
    directory: str,
    compute: ComputeConfig,
) -> list[Row]:
    """Returns rows of images per second and GPU utilisation of a training through Ray."""
    # Ray workers need the GPU memory that this process holds without need.
    gc.collect()
    torch.cuda.empty_cache()
    output_dir = storage.join(directory, f"{name}-busy")
    with watched_gpus() as busy:
        # The time of the point before the measured windows is their start.
        wider = replace(windows, num_warm=windows.num_warm - 1, number=windows.number + 1)
        points = ray_points(training, wider, output_dir, compute)
    began, ended = points[0]["time"], points[-1]["time"]
    images = windows.steps_each * windows.number * training.config.batch_size
    what = f"training of {name} through Ray"
    return [
        _rate_row(what, images / (ended - began)),
        row(f"{what}: GPU busy", _ALL, [busy.share(began, ended)], goal=GOAL_BUSY),
    ]


def inference_rows(inference: Inference, device: torch.device, rounds: int) -> list[Row]:
    """Returns rows of our inference of both systems, against inference without one optimization."""
    table = storage.read_table(inference.shards.paths[0], list(COLUMNS))
    dtype = inference_dtype(inference.config.precision, device)
    ours = _predict(inference, device, table, dtype, None)
    rows = [_rate_row("activation inference", table.num_rows / _seconds(ours, device))]
    others: dict[str, tuple[torch.dtype, int | None]] = {}
    if dtype != torch.float32:
        others["in float32 (TF32 where torch takes it)"] = torch.float32, None
    if device.type == "cuda":
        others["image by image"] = dtype, 1
    for by, (other_dtype, batch_size) in others.items():
        theirs = _predict(inference, device, table, other_dtype, batch_size)
        what, clock = "activation inference", partial(_now, device)
        rows.append(compare(what, ours, by, theirs, goal=1.0, rounds=rounds, clock=clock))
    return rows


def _predict(
    inference: Inference,
    device: torch.device,
    table: pa.Table,
    dtype: torch.dtype,
    batch_size: int | None,
) -> Callable[[], object]:
    config = inference.config
    predictor = ActivationPredictor(
        inference.networks(dtype, device),
        scales=config.scales,
        flip=config.flip,
        device=device,
        batch_size=batch_size,
    )
    rows = table.to_pydict()
    return lambda: predictor(rows)


def inference_busy_rows(
    inference: Inference, device: torch.device, actors_per_gpu: int
) -> list[Row]:
    """Returns rows of images per second and GPU utilisation of warm inference actors."""
    comparison = inference_comparison(inference)
    label = f"busy-{actors_per_gpu}"
    gpus_each = share_of_gpu(actors_per_gpu) if device.type == "cuda" else 0
    with watched_gpus() as busy:
        finished = map_by_ray(comparison, actors_per_gpu, label, gpus_each)
    rate = warm_rate(finished, actors_per_gpu) * inference.shards.images_per_shard
    # The interval ends when the first actor has no more shards.
    share = busy.share(warm_since(finished), min(max(times) for times in finished))
    what = f"activation inference, actors on the GPU: {actors_per_gpu}"
    return [_rate_row(what, rate), row(f"{what}: GPU busy", _ALL, [share], goal=GOAL_BUSY)]


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    """Returns the seconds of a second call. The first call is a warm-up."""
    work()
    began = _now(device)
    work()
    return _now(device) - began


def _now(device: torch.device) -> float:
    """Returns the time after all pending work of the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
