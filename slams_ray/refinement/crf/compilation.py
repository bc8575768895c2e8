"""Compiles functions of arrays to machine code, cached on disk for the next process."""

from collections.abc import Callable
from typing import Any, TypeVar

from numba import njit

Function = TypeVar("Function", bound=Callable[..., Any])

REORDERING = {"contract", "reassoc", "arcp", "nsz"}
"""Flags that LLVM needs to vectorise sums. All of fastmath would give up infinities and NaN."""


def compiled(function: Function) -> Function:
    """Returns a function that is compiled on its first call, for the types of that call.

    numba caches the code next to the source, or in the user's cache directory if the source is
    read-only. It replaces files atomically, so workers can compile at the same time. Where neither
    directory is writable, each process compiles for itself. numba invalidates its cache per file,
    so compiled functions must not call functions of other files.
    """
    options: dict[str, Any] = {"error_model": "numpy", "fastmath": REORDERING}
    try:
        return njit(cache=True, **options)(function)
    except RuntimeError:
        return njit(**options)(function)
