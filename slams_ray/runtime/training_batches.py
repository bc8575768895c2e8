"""Batches of one training worker, decoded and augmented in advance by Ray Data."""

import pickle
from collections.abc import Iterator

import ray
import torch

from slams_ray.runtime import cluster
from slams_ray.runtime.batch_copies import on_device
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
    context = cluster.data_context()
    context.execution_options.preserve_order = True
    context.target_max_block_size = _BLOCK_BYTES
    # Pickled here, because Ray would first try Arrow and log a warning.
    planned = job.task.loading_tasks(rank, num_workers, first_step)
    items = [{"task": pickle.dumps(task)} for task in planned]
    if not items:
        return iter(())
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
    return on_device(map(job.task.complete, batches), device)
