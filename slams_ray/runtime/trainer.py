"""Training of any network with Ray Train: planned data, DDP, checkpoints, resume, metrics."""

import dataclasses
import io
import json
import logging
import os
import pickle
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import ray
import torch
import torch.distributed as dist
from ray import train
from ray.exceptions import RayError
from ray.train import (
    CheckpointConfig,
    FailureConfig,
    LoggingConfig,
    RunConfig,
    ScalingConfig,
    TrainingFailedError,
)
from ray.train.torch import TorchTrainer, get_device, prepare_model
from torch import nn

from slams_ray import storage
from slams_ray.errors import ConfigError
from slams_ray.runtime import cluster
from slams_ray.runtime.allocator import keep_freed_memory
from slams_ray.runtime.devices import choose_kernels, device_name, num_usable_cores
from slams_ray.runtime.interrupts import in_thread
from slams_ray.runtime.metric_window import MetricWindow, Sums
from slams_ray.runtime.pickled_job import PickledJob
from slams_ray.runtime.rendezvous import NodeAddressConfig
from slams_ray.runtime.system_metrics import SystemMetrics
from slams_ray.runtime.training_batches import batches
from slams_ray.runtime.training_failure import (
    DrainWatch,
    WorkerError,
    ends_watched,
    may_be_retried,
    training_error,
    was_announced,
)
from slams_ray.runtime.training_job import TrainingJob
from slams_ray.runtime.training_log import TrainingFollower, TrainingLog

logger = logging.getLogger(__name__)

TRAINING_NAME = "training.json"
"""File with the results of a finished training, in the directory of model.pt: metrics, history, the
times when the last attempt began and ended, and the workers on each node and kind of device."""
WORKER_CPUS = 0.97
"""Logical CPUs of a training worker. With up to three data-loading tasks it takes one CPU, so N
workers fit on N cores. At 1 CPU none would be left for data loading, and all workers would wait.
"""
_STATE = "state.pt"


def fit(job: TrainingJob) -> dict[str, Any]:
    """Trains, or continues a training that was killed; sends its points to MLflow.

    Returns:
        the content of `TRAINING_NAME`, with `metrics` of the trained network and `history`, the
        logged metric points.

    Raises:
        ConfigError: this machine, without a cluster, has no room for the workers.
        TrainingError: the training failed.
    """
    finished = storage.join(job.output_dir, TRAINING_NAME)
    with TrainingFollower(job) as follower:
        # It exists where the driver was killed between the end of the training and the record of
        # its stage. If the last checkpoint were reported again, Ray Train would delete it.
        if not storage.exists(finished):
            cluster.connect()
            _check_room(job)
            _fit_with_retries(job)
        result: dict[str, Any] = json.loads(storage.read_bytes(finished))
        is_tracked = follower.finish(result["history"])
    if job.run_id is not None and not is_tracked:
        logger.warning("%s: MLflow lacks some steps, all of them are in %s", job.label, finished)
    return result


def _check_room(job: TrainingJob) -> None:
    """Says for what a training waits; Ray Train would wait without a word.

    Raises:
        ConfigError: no other node can come.
    """
    on_gpu = cluster.use_gpu(job.device)
    kind, of_worker = ("GPU", 1.0) if on_gpu else ("CPU", WORKER_CPUS)
    num_workers, setting = job.num_workers, "compute.train_workers"
    if job.min_workers is not None:
        num_workers, setting = job.min_workers, "compute.min_train_workers"
    available = ray.cluster_resources().get(kind, 0)
    if num_workers * of_worker <= available:
        return
    problem = (
        f"{job.label}: {num_workers} training workers need a {kind} each, but the cluster has "
        f"{available:g}"
    )
    if cluster.is_alone():
        raise ConfigError(f"{problem}: lower {setting}")
    logger.warning("%s: it waits for nodes; %s can be lower", problem, setting)


def _fit_with_retries(job: TrainingJob) -> None:
    """Restarts the training from its last checkpoint when a worker or node is lost.

    Ray Train itself would retry every exception, even one that occurs again each time.
    """
    num_losses = 0
    while True:
        try:
            with ends_watched():
                in_thread(_trainer(job).fit)
            return
        except (TrainingFailedError, RayError) as error:
            failure = training_error(job.label, error)
            if isinstance(error, RayError) or not may_be_retried(error):
                raise failure from error
            num_losses += not was_announced(error)
            if num_losses > job.max_failures:
                raise failure from error
            count = f"{num_losses} of at most {job.max_failures} losses"
            logger.warning("%s; continuing from the last checkpoint (%s)", failure, count)


def _trainer(job: TrainingJob) -> TorchTrainer:
    gpu = cluster.use_gpu(job.device)
    return TorchTrainer(
        _train_worker,
        train_loop_config={"job": PickledJob(ray.cloudpickle.dumps(job))},
        torch_config=NodeAddressConfig(),
        scaling_config=ScalingConfig(
            num_workers=_worker_range(job),
            use_gpu=gpu,
            # GPUs of one node have fast links; on CPUs a worker can use all cores of its node.
            placement_strategy="PACK" if gpu else "SPREAD",
            resources_per_worker={"CPU": WORKER_CPUS} | ({"GPU": 1} if gpu else {}),
        ),
        run_config=RunConfig(
            name="training",
            storage_path=job.output_dir,
            checkpoint_config=CheckpointConfig(num_to_keep=1),
            logging_config=LoggingConfig(log_level="WARNING"),
            # A node that announced its end does not count as a failure.
            failure_config=FailureConfig(max_failures=0, max_preemption_failures=-1),
        ),
    )


def _worker_range(job: TrainingJob) -> int | tuple[int, int]:
    """Number of workers, or a range, with which Ray Train continues after it loses workers."""
    fewest = job.min_workers
    if fewest is None or fewest == job.num_workers:
        return job.num_workers
    return fewest, job.num_workers


def _train_worker(config: dict[str, Any]) -> None:
    drain = DrainWatch()
    try:
        _train(pickle.loads(config["job"].pickled), drain)
    except Exception as error:
        raise WorkerError.of(error, drain.has_seen) from error


def _train(job: TrainingJob, drain: DrainWatch) -> None:
    context = train.get_context()
    rank, num_workers = context.get_world_rank(), context.get_world_size()
    device = get_device()
    if device.type == "cuda":
        # Workers exchange what they can compute before Ray Train chooses the device.
        torch.cuda.set_device(device)
        choose_kernels(job.deterministic)
    else:
        keep_freed_memory()
        _set_threads(job, context)
    torch.manual_seed(job.seed)
    job = _in_one_precision(job, device.type, num_workers)
    # With several workers graphs have not been tried, and gradients would wait for a whole graph.
    has_graphs = job.cuda_graphs and not job.deterministic and num_workers == 1
    module = job.training.build(device.type, has_graphs).to(device)
    optimizer = job.training.optimizer(module)
    first_step, history, unlogged = _restore(job, module, optimizer)
    wrapped = prepare_model(module, parallel_strategy_kwargs={"forward_sync_buffers": False})
    wrapped.train()
    log = TrainingLog(job, rank, first_step, history)
    system = _system_metrics(job, rank)
    share = job.training.batch_share(rank, num_workers)
    window = MetricWindow(share / job.batch_size, unlogged)
    shares = batches(job, rank, num_workers, first_step, device)
    began = None
    for step, batch in zip(range(first_step, job.num_steps), shares, strict=True):
        # Start-up ends with the first batch.
        began = began or time.time()
        window.add(job.training.step(wrapped, optimizer, batch, step, job.num_steps))
        done = step + 1
        logged = done % job.log_every_steps == 0 or done == job.num_steps
        saved = done % job.checkpoint_every_steps == 0 or done == job.num_steps
        if logged or saved:
            job.training.check(window.steps, done)
        if logged:
            log.add(done, window.means(), optimizer.param_groups[0]["lr"])
            saved = drain.is_news() or saved
        if saved:
            position = {"step": done, "history": log.history, "unlogged": window.sums()}
            learnt = {"module": job.training.state(module), "optimizer": optimizer.state_dict()}
            _report(learnt | position, rank)
    wrapped.eval()
    graph_problem = job.training.release(module)
    results = _gather(job.training.evaluate(module, rank, num_workers), num_workers)
    nodes = Counter(_gather(cluster.node_id(), num_workers))
    devices = Counter(_gather(device_name(get_device().type), num_workers))
    metrics = job.training.summarise(results) if rank == 0 else {}
    if rank == 0:
        storage.write_bytes(storage.join(job.output_dir, "model.pt"), job.training.dump(module))
        ended = time.time()
        content = {
            "metrics": metrics,
            "history": log.history,
            "worked": (began or ended, ended),
            "nodes": nodes,
            "devices": devices,
            "precision": "bfloat16" if job.training.is_mixed(device.type) else "float32",
            "graph_problem": graph_problem,
        }
        text = json.dumps(content).encode()
        storage.write_bytes(storage.join(job.output_dir, TRAINING_NAME), text)
    system.stop()


def _in_one_precision(job: TrainingJob, device: str, num_workers: int) -> TrainingJob:
    """Trains in float32 where the machine of some worker cannot train in mixed precision.

    Workers whose frozen networks hold different number formats would wait for each other for ever.
    """
    if all(_gather(job.training.is_mixed(device), num_workers)):
        return job
    return dataclasses.replace(job, training=job.training.without_amp())


def _system_metrics(job: TrainingJob, rank: int) -> SystemMetrics:
    is_watched = job.system_metrics and rank == 0
    os.environ.update(job.credentials if is_watched else {})
    return SystemMetrics(job.tracking_uri, job.run_id if is_watched else None)


def _set_threads(job: TrainingJob, context: Any) -> None:
    """Divides the cores of a node among its workers; Ray would give each one thread."""
    share = max(1, num_usable_cores() // context.get_local_world_size())
    torch.set_num_threads(job.num_threads or share)


def _gather(result: Any, num_workers: int) -> list[Any]:
    if num_workers == 1:
        return [result]
    gathered: list[Any] = [None] * num_workers
    dist.all_gather_object(gathered, result)
    return gathered


def _restore(
    job: TrainingJob, module: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[int, list[dict[str, float]], Sums]:
    """Loads the last checkpoint; returns finished steps, logged points and unlogged sums."""
    checkpoint = train.get_checkpoint()
    if checkpoint is None:
        return 0, [], {}
    with checkpoint.as_directory() as directory:
        data = (Path(directory) / _STATE).read_bytes()
    state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    job.training.load_state(module, state["module"])
    optimizer.load_state_dict(state["optimizer"])
    return state["step"], state["history"], state.get("unlogged", {})


def _report(state: dict[str, Any], rank: int) -> None:
    """Reports to Ray Train, as every rank must; rank 0 adds a checkpoint of the state."""
    step = state["step"]
    with tempfile.TemporaryDirectory() as directory:
        checkpoint = None
        if rank == 0:
            torch.save(state, Path(directory) / _STATE)
            checkpoint = train.Checkpoint.from_directory(directory)
        train.report(
            {"step": step},
            checkpoint=checkpoint,
            checkpoint_dir_name=f"step-{step:07d}",
        )
