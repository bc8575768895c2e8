"""Activation shard and masks to counts of every threshold, for CAM and SLAMs in one pass."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from slams_ray.core.activation import upsample_stored
from slams_ray.core.threshold import ThresholdCounts, count_thresholds
from slams_ray.data.image import decode_mask
from slams_ray.mappers.infer import CAM, SLAMS, unpack_maps

COUNT_SCHEMA = pa.schema([("image_id", pa.string())])


class CountMapper:
    """Sums `ThresholdCounts` over the images of a shard that have a mask."""

    def __init__(self, num_categories: int, num_thresholds: int) -> None:
        self.num_categories = num_categories
        self.num_thresholds = num_thresholds

    def __call__(
        self, tables: Mapping[str, pa.Table], payload: None
    ) -> tuple[pa.Table, dict[str, Any]]:
        zeros = ThresholdCounts.zeros(self.num_categories, self.num_thresholds)
        totals = {CAM: zeros, SLAMS: zeros}
        scored = []
        masks = tables["images"].column("mask")
        for row, mask in zip(tables["activations"].to_pylist(), masks, strict=True):
            if not mask.is_valid:
                continue
            scored.append(row["image_id"])
            ground_truth = decode_mask(mask.as_py(), row["image_id"])
            class_indices = np.asarray(row["image_labels"], np.int64)
            for method in totals:
                stored = unpack_maps(row[method], class_indices, row["height"], row["width"])
                totals[method] = totals[method] + count_thresholds(
                    upsample_stored(stored, ground_truth.shape),
                    class_indices,
                    ground_truth,
                    self.num_categories,
                    self.num_thresholds,
                )
        summary = {m: counts_to_lists(counts) for m, counts in totals.items()}
        table = pa.Table.from_pydict({"image_id": scored}, schema=COUNT_SCHEMA)
        return table, summary | {"num_rows": len(scored)}


def counts_to_lists(counts: ThresholdCounts) -> dict[str, Any]:
    """JSON form of the counts."""
    return {name: value.tolist() for name, value in vars(counts).items()}


def counts_from_lists(content: Mapping[str, Any]) -> ThresholdCounts:
    """Inverse of `counts_to_lists`."""
    return ThresholdCounts(**{name: np.array(value, np.int64) for name, value in content.items()})
