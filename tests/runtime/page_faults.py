"""Counts how often the kernel gives this process a page of memory."""

import resource
from statistics import median

FEWEST_OF_A_NEW_ARRAY = 20
"""Page faults of `of_a_large_array` where each array is new and pages have 2 MiB."""


def of_a_large_array() -> int:
    """Makes and frees an array of 40 MiB 25 times; returns the median of the page faults.

    The first arrays are new in any case, because small objects take parts of what is free.
    """
    # Here, because a process that imports this module would wait for torch.
    import torch

    counts = []
    for _ in range(25):
        before = _so_far()
        torch.ones(10 * 2**20)
        counts.append(_so_far() - before)
    return int(median(counts))


def _so_far() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
