"""Scores a refinement at several thresholds on a slice of images with maps and masks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations_with_replacement
from typing import Any

import numpy as np
import pyarrow as pa

from slams_ray.data.image import decode_image, decode_mask
from slams_ray.data.stored_maps import unpack_maps, upsample_stored
from slams_ray.errors import ArtifactError
from slams_ray.metrics import (
    IGNORE_INDEX,
    class_counts,
    confusion_matrix,
    miou_of_counts,
    ratio,
)
from slams_ray.refinement.pseudo_label import (
    Refinement,
    agreed_labels,
    labels_of_present,
    refined_positions,
)

SLICE_SCHEMA = pa.schema(
    [
        ("image_id", pa.string()),
        ("image", pa.binary()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("mask", pa.binary()),
        ("image_labels", pa.list_(pa.int16())),
    ]
)
MAPS = "maps"
"""Column that `with_maps` adds."""


def maps_schema(system: str) -> pa.Schema:
    """Returns the schema of a slice's maps."""
    return pa.schema([("image_id", pa.string()), (system, pa.binary())])


@dataclass(frozen=True, kw_only=True)
class PairCounts:
    """Pixel counts of every confident pair of S thresholds or alphas. They can be added.

    Attributes:
        classes: (S, S, 3, K) `class_counts` of the labels on which the background value of a pair
            (first axis) and its foreground value (second axis) agree. The diagonal holds the plain
            refinement.
        num_ignored: (S, S) annotated pixels on which a pair disagrees.
        num_pixels: annotated pixels.
    """

    classes: np.ndarray
    num_ignored: np.ndarray
    num_pixels: int

    @classmethod
    def zeros(cls, num_values: int, num_all_classes: int) -> "PairCounts":
        pairs = (num_values, num_values)
        return cls(
            classes=np.zeros((*pairs, 3, num_all_classes), np.int64),
            num_ignored=np.zeros(pairs, np.int64),
            num_pixels=0,
        )

    def __add__(self, other: "PairCounts") -> "PairCounts":
        return PairCounts(**{k: v + getattr(other, k) for k, v in vars(self).items()})

    def miou(self) -> np.ndarray:
        """Returns the (S,) mIoU of the refinement at each value."""
        return np.array([miou_of_counts(self.classes[i, i]) for i in range(len(self.classes))])

    def ignored(self, background: int, foreground: int) -> float:
        """Returns the share of annotated pixels that a pair ignores."""
        return ratio(self.num_ignored[background, foreground], self.num_pixels)

    def best_pair(self, chosen: int, max_ignored: float) -> tuple[int, int]:
        """Returns (background, foreground) positions of the best pair around a value.

        The best pair has the highest mIoU on the pixels it does not ignore.

        Args:
            chosen: position of the value.
            max_ignored: largest share of pixels that the pair may ignore.
        """
        allowed = [
            (background, foreground)
            for background in range(chosen + 1)
            for foreground in range(chosen, len(self.classes))
            if self.ignored(background, foreground) <= max_ignored
        ]
        return max(allowed, key=lambda pair: miou_of_counts(self.classes[pair]))


def count_slice(
    table: pa.Table, refinement: Refinement, values: Sequence[float], num_all_classes: int
) -> PairCounts:
    """Counts the refined labels at each value and of each pair of values.

    Args:
        table: a slice `with_maps`.
        values: background thresholds or alphas. The first one labels most pixels as object, the
            last one fewest. They share the lattices of an image.
    """
    counts = PairCounts.zeros(len(values), num_all_classes)
    for row in table.to_pylist():
        counts = counts + _count_image(row, refinement, values, num_all_classes)
    return counts


def _count_image(
    row: Mapping[str, Any],
    refinement: Refinement,
    values: Sequence[float],
    num_all_classes: int,
) -> PairCounts:
    ground_truth = decode_mask(row["mask"], row["image_id"])
    labels = _refined_labels(row, refinement, values)
    counts = replace(
        PairCounts.zeros(len(values), num_all_classes),
        num_pixels=int((ground_truth != IGNORE_INDEX).sum()),
    )
    for background, foreground in combinations_with_replacement(range(len(labels)), 2):
        agreed = agreed_labels(labels[foreground], labels[background])
        confusion = confusion_matrix(ground_truth, agreed, num_all_classes)
        counts.classes[background, foreground] = class_counts(confusion)
        counts.num_ignored[background, foreground] = confusion[:, -1].sum()
    return counts


def _refined_labels(
    row: Mapping[str, Any], refinement: Refinement, values: Sequence[float]
) -> list[np.ndarray]:
    image = decode_image(row["image"], row["image_id"])
    class_indices = np.asarray(row["image_labels"], np.int64)
    if not len(class_indices):
        return [np.zeros(image.shape[:2], np.uint8)] * len(values)
    stored = unpack_maps(row[MAPS], class_indices, *image.shape[:2])
    activation = upsample_stored(stored, image.shape[:2])
    positions = refined_positions(image, activation, tuple(values), refinement)
    return [labels_of_present(p, class_indices) for p in positions]


def with_maps(slices: pa.Table, maps: pa.Table, system: str) -> pa.Table:
    """Adds the maps of a system to a slice, as a column.

    Raises:
        ArtifactError: slice and maps are of different images.
    """
    if slices.column("image_id") != maps.column("image_id"):
        raise ArtifactError(
            f"a slice of {slices.num_rows} images and its {maps.num_rows} rows of maps are of "
            "different images: remove the output directory of search_refinement and run the "
            "command again"
        )
    return slices.append_column(MAPS, maps.column(system))


class ScoreMapper:
    """Scores a refinement on a slice at several thresholds or alphas.

    Args:
        system: system whose maps are refined.
        values: see `count_slice`.
    """

    def __init__(
        self, system: str, refinement: Refinement, values: Sequence[float], num_all_classes: int
    ) -> None:
        self.system = system
        self.refinement = refinement
        self.values = values
        self.num_all_classes = num_all_classes

    def __call__(
        self, tables: Mapping[str, pa.Table], payload: None
    ) -> tuple[pa.Table, dict[str, Any]]:
        """Returns the image ids as a table, and class_counts (S, 3, K)."""
        table = with_maps(tables["slices"], tables["maps"], self.system)
        counts = count_slice(table, self.refinement, self.values, self.num_all_classes)
        own = np.arange(len(self.values))
        return table.select(["image_id"]), {"class_counts": counts.classes[own, own].tolist()}
