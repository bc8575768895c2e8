"""Reads maps and labels that another program made (docs/import.md)."""

import io
from collections.abc import Sequence
from zipfile import BadZipFile

import numpy as np
from PIL import Image

from slams_ray.data.stored_maps import STORED_LEVELS, stored_size
from slams_ray.errors import DataError

MAPS_SUFFIX, LABELS_SUFFIX = ".npz", ".png"
CLASSES, MAPS = "classes", "maps"
"""Names of the arrays of a file of maps."""
CLASS_NAMES_FILE = "class_names.txt"
"""Optional file beside the maps or labels: one class name per line, background first."""


def read_maps(
    data: bytes, source: str, image_labels: Sequence[int], size: tuple[int, int]
) -> np.ndarray:
    """Reads the maps of an image, in the order of its labels.

    Args:
        data: npz file with `classes` (P,), class indices from 1, and `maps` (P, h, w) in [0, 1].
        source: path of the file, for errors.
        image_labels: class indices of the image.
        size: (H, W) of the image. The maps have this size, or that of stored maps.

    Returns:
        (P, h, w) uint8 maps at stride 4.

    Raises:
        DataError: the file is damaged, or does not belong to the image.
    """
    classes, maps = _arrays(data, source)
    stored = stored_size(*size)
    if classes.ndim != 1 or maps.ndim != 3 or len(maps) != len(classes):
        raise DataError(
            f"{source} has {CLASSES} {classes.shape} and {MAPS} {maps.shape}, expected (P,) and "
            "(P, h, w)"
        )
    if sorted(classes.tolist()) != sorted(image_labels):
        raise DataError(
            f"{source} has maps of the classes {sorted(classes.tolist())}, but the image has the "
            f"labels {sorted(image_labels)}: write one map per label, with class indices from 1"
        )
    if len(classes) == 0:
        return np.zeros((0, *stored), np.uint8)
    if maps.shape[1:] not in (stored, size):
        raise DataError(
            f"{source} has maps of {maps.shape[1:]}, expected {size}, the size of the image, or "
            f"{stored}, a quarter of it. If data.max_side_px shrank the image, set it to None"
        )
    if maps.dtype.kind not in "biuf":
        raise DataError(f"{source} has maps of {maps.dtype}, expected numbers in [0, 1]")
    if not ((maps >= 0) & (maps <= 1)).all():
        raise DataError(
            f"{source} has values from {maps.min():.3g} to {maps.max():.3g}, expected "
            "[0, 1]: divide each map by its maximum"
        )
    order = [classes.tolist().index(label) for label in image_labels]
    shrunk = np.stack([_resize(m, stored) for m in maps[order].astype(np.float32)])
    return (shrunk * STORED_LEVELS).round().clip(0, STORED_LEVELS).astype(np.uint8)


_DAMAGED = (BadZipFile, ValueError, OSError, EOFError, KeyError, TypeError, AttributeError)
"""What numpy raises for files that are truncated, no npz, pickled, or without these arrays."""


def _arrays(data: bytes, source: str) -> tuple[np.ndarray, np.ndarray]:
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            return file[CLASSES], file[MAPS]
    except _DAMAGED as error:
        raise DataError(
            f"{source} ({len(data)} bytes) is not an npz file with {CLASSES} and {MAPS} ({error}): "
            "convert pickled .npy files with python -m jobs.convert"
        ) from error


def _resize(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes an (h, w) float32 map bilinearly; where it shrinks, all pixels count."""
    if values.shape == size:
        return values
    return np.asarray(Image.fromarray(values).resize(size[::-1], Image.Resampling.BILINEAR))
