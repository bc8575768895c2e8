"""Settings of the C library's memory allocator, for processes that compute networks on a CPU."""

import ctypes
from typing import Any

# Numbers of the parameters in glibc's malloc.h, see mallopt(3).
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
_LARGEST = 2**31 - 1
# The size of a heap of a thread other than the first. With less, glibc gives empty heaps back.
_HEAP_BYTES = 2**26


def keep_freed_memory() -> bool:
    """Lets this process keep the memory that it frees, for its next arrays.

    By default glibc gives arrays above 32 MiB back to the kernel, and the kernel clears every page
    again when the next array of that size is made. In other threads than the first this still
    happens to arrays above 64 MiB.

    Returns:
        whether the allocator has these settings; only glibc has them.
    """
    mallopt: Any = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    settings = (
        (_MMAP_THRESHOLD, _LARGEST),
        (_TRIM_THRESHOLD, _LARGEST),
        (_TOP_PAD, _HEAP_BYTES),
    )
    return all(mallopt(name, value) == 1 for name, value in settings)
