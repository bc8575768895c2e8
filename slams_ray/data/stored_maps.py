"""Format of stored maps (uint8 at stride 4, one for each label of the image) and pseudo labels.

This module does not import torch, which costs a worker 3 s of CPU time and 400 MB.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa

STORED_STRIDE = 4

STORED_LEVELS = 255

PSEUDO_LABEL_SCHEMA = pa.schema(
    [("image_id", pa.string()), ("refined", pa.binary()), ("pseudo_label", pa.binary())]
)


def stored_size(height: int, width: int) -> tuple[int, int]:
    """(h, w) of stored maps: the size of the image divided by 4, rounded up."""
    return -(-height // STORED_STRIDE), -(-width // STORED_STRIDE)


def upsample_stored(stored: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes (P, h, w) uint8 stored maps bilinearly to (P, H, W) float32 maps in [0, 1]."""
    maps = stored.astype(np.float32) / STORED_LEVELS
    return _resize_axis(_resize_axis(maps, 1, size[0]), 2, size[1])


def _resize_axis(maps: np.ndarray, axis: int, length: int) -> np.ndarray:
    """Interpolates along one axis, without aligned corners; constant maps stay exactly constant."""
    last = maps.shape[axis] - 1
    centres = ((np.arange(length) + 0.5) * (last + 1) / length - 0.5).clip(0, last)
    cells = centres.astype(np.intp)
    share = (centres - cells).astype(np.float32).reshape([-1] + [1] * (2 - axis))
    before = maps.take(cells, axis)
    return before + (maps.take(np.minimum(cells + 1, last), axis) - before) * share


IMAGE_COLUMNS = {
    "image_id": pa.string(),
    "height": pa.int32(),
    "width": pa.int32(),
    "image_labels": pa.list_(pa.int16()),
}


def activation_schema(systems: Iterable[str]) -> pa.Schema:
    """Columns of an activation shard: those of the image, and the maps of every system as bytes."""
    return pa.schema(IMAGE_COLUMNS | dict.fromkeys(systems, pa.binary()))


def unpack_maps(
    data: bytes, image_labels: Sequence[int] | np.ndarray, height: int, width: int
) -> np.ndarray:
    """Returns the (P, h, w) uint8 maps of one row; h and w follow from the size of the image."""
    shape = (len(image_labels), *stored_size(height, width))
    return np.frombuffer(data, np.uint8).reshape(shape)
