"""A slice of images with maps and masks to confusion counts of one refinement."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from slams_ray.core.activation import upsample_stored
from slams_ray.core.metrics import confusion_matrix
from slams_ray.core.pseudo_label import Refinement, labels_of_present, refined_positions
from slams_ray.data.image import decode_image, decode_mask
from slams_ray.mappers.infer import unpack_maps

SLICE_SCHEMA = pa.schema(
    [
        ("image_id", pa.string()),
        ("image", pa.binary()),
        ("mask", pa.binary()),
        ("image_labels", pa.list_(pa.int16())),
        ("maps", pa.binary()),
    ]
)


def count_slice(
    table: pa.Table, refinement: Refinement, strengths: Sequence[float], num_categories: int
) -> np.ndarray:
    """(S, K, K + 1) int64 confusion counts of the refined labels at each strength.

    Args:
        table: rows of `SLICE_SCHEMA`.
        strengths: background thresholds or alphas; they share the lattices of an image.
    """
    counts = np.zeros((len(strengths), num_categories, num_categories + 1), np.int64)
    for row in table.to_pylist():
        counts += _count_image(row, refinement, strengths, num_categories)
    return counts


def _count_image(
    row: Mapping[str, Any],
    refinement: Refinement,
    strengths: Sequence[float],
    num_categories: int,
) -> np.ndarray:
    image = decode_image(row["image"], row["image_id"])
    ground_truth = decode_mask(row["mask"], row["image_id"])
    class_indices = np.asarray(row["image_labels"], np.int64)
    stored = unpack_maps(row["maps"], class_indices, *image.shape[:2])
    activation = upsample_stored(stored, image.shape[:2])
    if len(class_indices):
        positions = refined_positions(image, activation, tuple(strengths), refinement)
    else:
        positions = [np.zeros(image.shape[:2], np.int64)] * len(strengths)
    return np.stack(
        [
            confusion_matrix(ground_truth, labels_of_present(p, class_indices), num_categories)
            for p in positions
        ]
    )
