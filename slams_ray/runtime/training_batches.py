"""Batches of one training worker, decoded and augmented in advance by Ray Data."""

import pickle
from collections.abc import Iterable

import numpy as np
import ray
import torch

from slams_ray.runtime import cluster
from slams_ray.runtime.training_job import TrainingJob

LOADING_CPUS = 0.01
"""Logical CPUs of a data-loading task."""
_BLOCK_BYTES = 16 * 2**20


def batches(
    job: TrainingJob, rank: int, num_workers: int, first_step: int, device: torch.device
) -> Iterable[dict[str, torch.Tensor]]:
    """Yields this worker's share of every global batch, from `first_step` on.

    Yields:
        name -> tensor on the device, for one step after another.
    """
    context = cluster.data_context()
    context.execution_options.preserve_order = True
    context.target_max_block_size = _BLOCK_BYTES
    # Pickled here, because Ray would first try Arrow and log a warning.
    planned = job.task.loading_tasks(rank, num_workers, first_step)
    items = [{"task": pickle.dumps(task)} for task in planned]
    if not items:
        return
    load = job.task.loader
    dataset = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
        lambda batch: load(pickle.loads(batch["task"][0])),
        batch_size=1,
        batch_format="numpy",
        compute=ray.data.TaskPoolStrategy(
            size=job.data_loading_tasks or cluster.num_data_loading_tasks()
        ),
        num_cpus=LOADING_CPUS,
    )
    batches = dataset.iter_batches(
        batch_size=job.task.batch_share(rank, num_workers),
        batch_format="numpy",
        prefetch_batches=2,
    )
    for batch in batches:
        completed = job.task.complete(batch)
        yield {name: _moved(values, device) for name, values in completed.items()}


def _moved(values: np.ndarray, device: torch.device) -> torch.Tensor:
    """Copies a read-only array to the device, from pinned memory so that the host does not wait."""
    tensor = torch.from_numpy(np.array(values))
    pinned = tensor.pin_memory() if device.type == "cuda" else tensor
    return pinned.to(device, non_blocking=True)
