"""Counts how often the kernel gives this process a page of memory."""

import ctypes
import resource
from statistics import median

ARRAY_BYTES = 40 * 2**20
FEWEST_OF_NEW_ARRAYS = 100
"""Page faults of `of_large_arrays` where each array is new and pages have 2 MiB."""
MOST_OF_KEPT_MEMORY = 2
"""Page faults of `of_large_arrays` where all of them take memory that was kept."""


def of_large_arrays() -> int:
    """Fills five arrays of 40 MiB and frees them, 15 times; returns the median of the page faults.

    The first arrays are new in any case, because small objects take parts of what is free. Five of
    them need more memory than one heap of a thread has, and more than the padding of the first.
    They come from malloc itself: a library may keep small objects above them, which glibc then
    cannot give back.
    """
    library = ctypes.CDLL(None)
    library.malloc.restype = ctypes.c_void_p
    counts = []
    for _ in range(15):
        before = _so_far()
        arrays = [ctypes.c_void_p(library.malloc(ARRAY_BYTES)) for _ in range(5)]
        for array in arrays:
            ctypes.memset(array, 1, ARRAY_BYTES)
        for array in reversed(arrays):
            library.free(array)
        counts.append(_so_far() - before)
    return int(median(counts))


def _so_far() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
