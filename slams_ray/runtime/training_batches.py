"""Batches of one training worker, decoded and augmented by Ray Data or by the worker itself."""

import pickle
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import ray
import torch

from slams_ray.runtime import cluster
from slams_ray.runtime.batch_copies import HostBatch, on_device, one_ahead
from slams_ray.runtime.training_job import TrainingJob

LOADING_CPUS = 0.01
"""Logical CPUs of a data-loading task."""
_BLOCK_BYTES = 16 * 2**20


def batches(
    job: TrainingJob, rank: int, num_workers: int, first_step: int, device: torch.device
) -> Iterator[dict[str, torch.Tensor]]:
    """Returns this worker's share of every global batch, from `first_step` on.

    Returns:
        name -> tensor on the device, for one step after another.
    """
    planned = job.training.loading_tasks(rank, num_workers, first_step)
    share = job.training.batch_share(rank, num_workers)
    if job.data_loading_tasks == 0:
        # Without a set number of threads a training takes all cores, and another thread makes its
        # steps 1.15 times as long.
        may_share = device.type == "cuda" or job.num_threads is not None
        loaded = _loaded_here(job, planned, share, in_advance=may_share)
    else:
        loaded = _loaded_by_ray(job, planned, share)
    return on_device(map(job.training.complete, loaded), device)


def _loaded_here(
    job: TrainingJob, planned: Iterable[Any], share: int, *, in_advance: bool
) -> Iterator[HostBatch]:
    """Yields batches that this process loads.

    Args:
        in_advance: whether a thread loads one loading task while the batches of another are used.
    """
    tasks = iter(planned)

    def load() -> dict[str, np.ndarray] | None:
        task = next(tasks, None)
        return None if task is None else job.training.loader(task)

    for samples in one_ahead(load) if in_advance else iter(load, None):
        num_samples = len(next(iter(samples.values())))
        # A loading task holds whole steps.
        for start in range(0, num_samples, share):
            yield {name: values[start : start + share] for name, values in samples.items()}


def _loaded_by_ray(job: TrainingJob, planned: Iterable[Any], share: int) -> Iterator[HostBatch]:
    """Returns batches that tasks of Ray Data load, on any node."""
    context = cluster.data_context()
    context.execution_options.preserve_order = True
    context.target_max_block_size = _BLOCK_BYTES
    # Pickled here, because Ray would first try Arrow and log a warning.
    items = [{"task": pickle.dumps(task)} for task in planned]
    if not items:
        return iter(())
    load = job.training.loader
    dataset = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
        lambda batch: load(pickle.loads(batch["task"][0])),
        batch_size=1,
        batch_format="numpy",
        compute=ray.data.TaskPoolStrategy(
            size=job.data_loading_tasks or cluster.num_data_loading_tasks()
        ),
        num_cpus=LOADING_CPUS,
    )
    return iter(dataset.iter_batches(batch_size=share, batch_format="numpy", prefetch_batches=2))
