"""Converts pickled maps of the IRN family to files that need no pickle (docs/import.md).

Such a file is a .npy with one pickled dictionary: `keys`, class indices from 0, and `cam` or
`high_res`, (P, h, w) arrays or tensors. A pickle can run any code when it is loaded. This reader
builds arrays and tensors and refuses everything else.
"""

import io
import pickle
import sys
from collections import OrderedDict
from typing import Any

import numpy as np

from slams_ray import storage
from slams_ray.data.imported import CLASSES, MAPS, MAPS_SUFFIX
from slams_ray.errors import DataError

PICKLED_SUFFIX = ".npy"
ALLOWED = {
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "scalar"),
    ("numpy.core.multiarray", "scalar"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("torch._utils", "_rebuild_tensor_v2"),
    ("collections", "OrderedDict"),
}
"""Module and name of the objects that maps are made of."""
MAP_KEYS = ("high_res", "cam")


def run(source: str, output: str) -> int:
    """Writes <image_id>.npz for each <image_id>.npy, and returns how many there are.

    Files that exist are kept.

    Raises:
        DataError: there are no files, or one is damaged or holds something else than maps.
    """
    from rich.progress import track

    names = [name for name in storage.list_files(source) if name.endswith(PICKLED_SUFFIX)]
    if not names:
        raise DataError(
            f"{source} has no {PICKLED_SUFFIX} files: give the directory that holds them"
        )
    for name in track(names, "converting", disable=not sys.stdout.isatty()):
        path = storage.join(source, name)
        target = storage.join(output, name.removesuffix(PICKLED_SUFFIX) + MAPS_SUFFIX)
        if not storage.exists(target):
            storage.write_bytes(target, convert(storage.read_bytes(path), path))
    return len(names)


def convert(data: bytes, source: str) -> bytes:
    """Returns the npz file of a pickled .npy file.

    Args:
        source: path of the file, for errors.

    Raises:
        DataError: the file is damaged, holds something else, or would run code.
    """
    content = _load(data, source)
    if not isinstance(content, dict) or "keys" not in content:
        raise DataError(f"{source} holds no dictionary with keys, as programs like IRN write it")
    found = [key for key in MAP_KEYS if key in content]
    if not found:
        raise DataError(
            f"{source} has {', '.join(map(str, content))}, expected {' or '.join(MAP_KEYS)}"
        )
    # High resolution is that of the image, which import needs no knowledge of the stride for.
    maps = np.asarray(content[found[0]], np.float32)
    buffer = io.BytesIO()
    arrays = {CLASSES: np.asarray(content["keys"], np.int64) + 1, MAPS: maps}
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def _load(data: bytes, source: str) -> Any:
    stream = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(stream)
        read_header = (
            np.lib.format.read_array_header_1_0
            if version == (1, 0)
            else np.lib.format.read_array_header_2_0
        )
        read_header(stream)
        content = _MapUnpickler(stream).load()
        return content.item() if isinstance(content, np.ndarray) and content.size == 1 else content
    except pickle.UnpicklingError as error:
        raise DataError(f"{source} is not a file of maps: {error}") from error
    except (ValueError, EOFError, AttributeError, TypeError, IndexError) as error:
        raise DataError(
            f"{source} ({len(data)} bytes) is truncated or not a .npy file ({error})"
        ) from error


class _MapUnpickler(pickle.Unpickler):
    """Builds arrays and tensors, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("torch.storage", "_load_from_bytes"):
            return _load_storage
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(
                f"it asks for {module}.{name}, which is no part of an array or a tensor, and is "
                "not run"
            )
        return OrderedDict if name == "OrderedDict" else super().find_class(module, name)


def _load_storage(data: bytes) -> Any:
    import torch

    return torch.load(io.BytesIO(data), weights_only=True)
