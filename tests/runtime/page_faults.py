"""Counts how often the kernel gives this process a page of memory."""

import resource
from statistics import median

FEWEST_OF_NEW_ARRAYS = 100
"""Page faults of `of_large_arrays` where each array is new and pages have 2 MiB."""
MOST_OF_KEPT_MEMORY = 2
"""Page faults of `of_large_arrays` where all of them take memory that was kept."""


def of_large_arrays() -> int:
    """Makes five arrays of 40 MiB and frees them, 15 times; returns the median of the page faults.

    The first arrays are new in any case, because small objects take parts of what is free. Five of
    them need more memory than one heap of a thread has, and more than the padding of the first.
    """
    # Here, because a process that imports this module would wait for torch.
    import torch

    counts = []
    for _ in range(15):
        before = _so_far()
        arrays = [torch.ones(10 * 2**20) for _ in range(5)]
        while arrays:
            arrays.pop()
        counts.append(_so_far() - before)
    return int(median(counts))


def _so_far() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
