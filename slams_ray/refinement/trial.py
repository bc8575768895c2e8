"""A slice of images with maps and masks to counts of refinements at several strengths."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations_with_replacement
from typing import Any

import numpy as np
import pyarrow as pa

from slams_ray.data.image import decode_image, decode_mask
from slams_ray.data.stored_maps import SLAMS, unpack_maps, upsample_stored
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
MAPS_SCHEMA = pa.schema([("image_id", pa.string()), (SLAMS, pa.binary())])


@dataclass(frozen=True, kw_only=True)
class PairCounts:
    """Pixel counts of every confident pair of S strengths, from lenient to strict; additive.

    Attributes:
        classes: (S, S, 3, K) `class_counts` of the labels that the lenient strength (first axis)
            and the strict one agree on; a strength paired with itself is the plain refinement.
        num_ignored: (S, S) annotated pixels they do not agree on.
        num_pixels: annotated pixels.
    """

    classes: np.ndarray
    num_ignored: np.ndarray
    num_pixels: int

    @classmethod
    def zeros(cls, num_strengths: int, num_categories: int) -> "PairCounts":
        pairs = (num_strengths, num_strengths)
        return cls(
            classes=np.zeros((*pairs, 3, num_categories), np.int64),
            num_ignored=np.zeros(pairs, np.int64),
            num_pixels=0,
        )

    def __add__(self, other: "PairCounts") -> "PairCounts":
        return PairCounts(**{k: v + getattr(other, k) for k, v in vars(self).items()})

    def miou(self) -> np.ndarray:
        """(S,) mIoU of the refinement at each strength."""
        return np.array([miou_of_counts(self.classes[i, i]) for i in range(len(self.classes))])

    def ignored(self, lenient: int, strict: int) -> float:
        """Share of annotated pixels a pair leaves out."""
        return ratio(self.num_ignored[lenient, strict], self.num_pixels)

    def best_pair(self, chosen: int, max_ignored: float) -> tuple[int, int]:
        """The pair around a strength whose labels are best where they agree.

        Args:
            max_ignored: largest share of pixels it may leave out.
        """
        allowed = [
            (lenient, strict)
            for lenient in range(chosen + 1)
            for strict in range(chosen, len(self.classes))
            if self.ignored(lenient, strict) <= max_ignored
        ]
        return max(allowed, key=lambda pair: miou_of_counts(self.classes[pair]))


def count_slice(
    table: pa.Table, refinement: Refinement, strengths: Sequence[float], num_categories: int
) -> PairCounts:
    """Counts of the refined labels at each strength and of each pair.

    Args:
        table: a slice `with_maps`.
        strengths: background thresholds or alphas from lenient to strict; they share the lattices
            of an image.
    """
    counts = PairCounts.zeros(len(strengths), num_categories)
    for row in table.to_pylist():
        counts = counts + _count_image(row, refinement, strengths, num_categories)
    return counts


def _count_image(
    row: Mapping[str, Any],
    refinement: Refinement,
    strengths: Sequence[float],
    num_categories: int,
) -> PairCounts:
    ground_truth = decode_mask(row["mask"], row["image_id"])
    labels = _refined_labels(row, refinement, strengths)
    counts = replace(
        PairCounts.zeros(len(strengths), num_categories),
        num_pixels=int((ground_truth != IGNORE_INDEX).sum()),
    )
    for lenient, strict in combinations_with_replacement(range(len(labels)), 2):
        agreed = agreed_labels(labels[strict], labels[lenient])
        confusion = confusion_matrix(ground_truth, agreed, num_categories)
        counts.classes[lenient, strict] = class_counts(confusion)
        counts.num_ignored[lenient, strict] = confusion[:, -1].sum()
    return counts


def _refined_labels(
    row: Mapping[str, Any], refinement: Refinement, strengths: Sequence[float]
) -> list[np.ndarray]:
    image = decode_image(row["image"], row["image_id"])
    class_indices = np.asarray(row["image_labels"], np.int64)
    if not len(class_indices):
        return [np.zeros(image.shape[:2], np.uint8)] * len(strengths)
    stored = unpack_maps(row[SLAMS], class_indices, *image.shape[:2])
    activation = upsample_stored(stored, image.shape[:2])
    positions = refined_positions(image, activation, class_indices, tuple(strengths), refinement)
    return [labels_of_present(p, class_indices) for p in positions]


def with_maps(slices: pa.Table, maps: pa.Table) -> pa.Table:
    """Rows of `SLICE_SCHEMA` with the maps of the same images as a further column.

    Raises:
        ArtifactError: they are not of the same images.
    """
    if slices.column("image_id") != maps.column("image_id"):
        raise ArtifactError(
            f"a slice of {slices.num_rows} images has maps of {maps.num_rows} others: remove the "
            "output directory of search_refinement and run the command again"
        )
    return slices.append_column(SLAMS, maps.column(SLAMS))


class JudgeMapper:
    """Scores a refinement on a slice at several thresholds or alphas, from lenient to strict."""

    def __init__(
        self, refinement: Refinement, strengths: Sequence[float], num_categories: int
    ) -> None:
        self.refinement = refinement
        self.strengths = strengths
        self.num_categories = num_categories

    def __call__(
        self, tables: Mapping[str, pa.Table], payload: None
    ) -> tuple[pa.Table, dict[str, Any]]:
        """The ids as a table; class_counts: (S, 3, K)."""
        table = with_maps(tables["slices"], tables["maps"])
        counts = count_slice(table, self.refinement, self.strengths, self.num_categories)
        own = np.arange(len(self.strengths))
        return table.select(["image_id"]), {"class_counts": counts.classes[own, own].tolist()}
