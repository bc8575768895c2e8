"""Counts over a shard that score every threshold, for all systems in one pass."""

import base64
import io
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from slams_ray.data.image import decode_mask
from slams_ray.data.image_trace import TracedMapper
from slams_ray.data.stored_maps import STORED_LEVELS, unpack_maps, upsample_stored
from slams_ray.seeds.label_free import CriterionSums, criterion_sums
from slams_ray.seeds.threshold import ThresholdCounts, count_thresholds

COUNT_SCHEMA = pa.schema([("image_id", pa.string())])
COUNTS, CRITERIA = "counts", "criteria"

Additive = TypeVar("Additive", ThresholdCounts, CriterionSums)


class CountMapper(TracedMapper):
    """Sums `ThresholdCounts` over images with a mask, and `CriterionSums` over images with a label.

    Args:
        systems: systems to count for, which are columns of the activation shard.
    """

    def __init__(self, systems: Sequence[str], num_all_classes: int, num_thresholds: int) -> None:
        self.systems = systems
        self.num_all_classes = num_all_classes
        self.num_thresholds = num_thresholds

    def __call__(
        self, tables: Mapping[str, pa.Table], payload: None
    ) -> tuple[pa.Table, dict[str, Any]]:
        """Returns the ids of scored images, and the packed sums of each system."""
        no_counts = ThresholdCounts.zeros(self.num_all_classes, self.num_thresholds)
        counts = dict.fromkeys(self.systems, no_counts)
        criteria = dict.fromkeys(self.systems, CriterionSums.zeros(self.num_thresholds))
        scored: list[str] = []
        pairs = zip(tables["images"].to_pylist(), tables["activations"].to_pylist(), strict=True)
        for image_row, row in pairs:
            self.enter(row["image_id"])
            classes = np.asarray(row["image_labels"], np.int64)
            truth = image_row["mask"]
            ground_truth = None if truth is None else decode_mask(truth, row["image_id"])
            for system in self.systems:
                maps = unpack_maps(row[system], classes, row["height"], row["width"])
                if len(classes):
                    criteria[system] += self._criteria(maps)
                if ground_truth is not None:
                    counts[system] += self._count(maps, classes, ground_truth)
            if ground_truth is not None:
                scored.append(row["image_id"])
        table = pa.Table.from_pydict({"image_id": scored}, schema=COUNT_SCHEMA)
        return table, {
            COUNTS: {system: pack(value) for system, value in counts.items()},
            CRITERIA: {system: pack(value) for system, value in criteria.items()},
            "num_rows": len(scored),
        }

    def _criteria(self, maps: np.ndarray) -> CriterionSums:
        """Returns the sums of the label-free criteria, at the stored resolution of the maps."""
        scores = maps.max(axis=0) / np.float32(STORED_LEVELS)
        return criterion_sums(scores.ravel(), self.num_thresholds)

    def _count(
        self, maps: np.ndarray, classes: np.ndarray, ground_truth: np.ndarray
    ) -> ThresholdCounts:
        return count_thresholds(
            upsample_stored(maps, ground_truth.shape),
            classes,
            ground_truth,
            self.num_all_classes,
            self.num_thresholds,
        )


def pack(sums: ThresholdCounts | CriterionSums) -> dict[str, str]:
    """Returns sums as compressed text for JSON: kilobytes for 80 classes instead of a megabyte."""
    return {name: _pack_array(np.asarray(value)) for name, value in vars(sums).items()}


def unpack(kind: type[Additive], content: Mapping[str, str]) -> Additive:
    """Restores sums from the text of `pack`."""
    arrays: dict[str, Any] = {name: _unpack_array(text) for name, text in content.items()}
    return kind(**arrays)


def _pack_array(values: np.ndarray) -> str:
    buffer = io.BytesIO()
    np.save(buffer, values, allow_pickle=False)
    return base64.b85encode(zlib.compress(buffer.getvalue())).decode("ascii")


def _unpack_array(text: str) -> np.ndarray:
    data = zlib.decompress(base64.b85decode(text))
    return np.load(io.BytesIO(data), allow_pickle=False)
