"""Compiling a function of arrays to machine code, kept on disk for the next process."""

from collections.abc import Callable
from typing import Any, TypeVar

from numba import njit

Function = TypeVar("Function", bound=Callable[..., Any])

REORDERING = {"contract", "reassoc", "arcp", "nsz"}
"""What LLVM needs to vectorise sums. Not the whole of fastmath: it would let infinities and NaN
mean anything."""


def compiled(function: Function) -> Function:
    """`function` compiled when first called, for the types it is called with.

    numba keeps the code beside the source, or in the user's cache directory where that is
    read-only, and replaces files whole: workers may start at once. Where neither can be written,
    each process compiles for itself. To tell whether kept code is stale numba looks at the file of
    the function alone: compiled functions may call only those of their own file.
    """
    options: dict[str, Any] = {"error_model": "numpy", "fastmath": REORDERING}
    try:
        return njit(cache=True, **options)(function)
    except RuntimeError:
        return njit(**options)(function)
