"""Counts over the global batch: what a loss divides by must not depend on the workers."""

import torch
import torch.distributed as dist


def mean_over_workers(counts: torch.Tensor) -> torch.Tensor:
    """(N,) mean of (B, N) counts over the images of all workers, float32.

    An image's sums over it, averaged over all images, give the loss over everything that is counted
    in the global batch: the optimisation step then does not depend on how images are spread over
    workers. Every worker must call it.
    """
    total = torch.cat([counts.sum(dim=0), counts.new_full((1,), len(counts))]).double()
    if dist.is_initialized() and dist.get_world_size() > 1:
        dist.all_reduce(total)
    return (total[:-1] / total[-1]).float()
