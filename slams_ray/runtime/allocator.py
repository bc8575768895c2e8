"""Settings of the C library's memory allocator, for processes that compute on a CPU."""

import ctypes
from typing import Any

# Numbers of the parameters in glibc's malloc.h, see mallopt(3).
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4
# The largest heap of a thread other than the first. With less padding, glibc returns empty heaps.
_HEAP_BYTES = 2**26
_SETTINGS = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, -1), (_TOP_PAD, _HEAP_BYTES))


def keep_freed_memory() -> bool:
    """Lets this process keep the memory that it frees, for its next arrays.

    By default glibc gives arrays above 32 MiB back to the kernel, and the kernel clears every page
    again when the next array of that size is made. In other threads than the first this still
    happens to arrays above 64 MiB.

    Returns:
        whether the allocator has these settings; only glibc has them.
    """
    # A larger M_MMAP_THRESHOLD would do as well, but glibc up to 2.34 refuses more than 32 MiB.
    mallopt: Any = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and all(mallopt(name, value) == 1 for name, value in _SETTINGS)
