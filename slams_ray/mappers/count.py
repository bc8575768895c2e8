"""Activation shard, images and masks to what every threshold gives, CAM and SLAMs in one pass."""

from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
from PIL import Image

from slams_ray.core.activation import STORED_LEVELS, upsample_stored
from slams_ray.core.label_free import CriterionSums, criterion_sums
from slams_ray.core.threshold import ThresholdCounts, count_thresholds
from slams_ray.data.image import decode_image, decode_mask, resize
from slams_ray.mappers.infer import METHODS, unpack_maps

COUNT_SCHEMA = pa.schema([("image_id", pa.string())])
COUNTS, CRITERIA = "counts", "criteria"

Additive = TypeVar("Additive", ThresholdCounts, CriterionSums)


class CountMapper:
    """Sums `ThresholdCounts` over the images that have a mask, `CriterionSums` over all."""

    def __init__(self, num_categories: int, num_thresholds: int) -> None:
        self.num_categories = num_categories
        self.num_thresholds = num_thresholds

    def __call__(
        self, tables: Mapping[str, pa.Table], payload: None
    ) -> tuple[pa.Table, dict[str, Any]]:
        counts = {
            m: ThresholdCounts.zeros(self.num_categories, self.num_thresholds) for m in METHODS
        }
        criteria = {m: CriterionSums.zeros(self.num_thresholds) for m in METHODS}
        scored = []
        pairs = zip(tables["images"].to_pylist(), tables["activations"].to_pylist(), strict=True)
        for image_row, row in pairs:
            class_indices = np.asarray(row["image_labels"], np.int64)
            maps = {
                m: unpack_maps(row[m], class_indices, row["height"], row["width"]) for m in METHODS
            }
            if len(class_indices):
                judged = self._judge(image_row, maps)
                criteria = {m: criteria[m] + judged[m] for m in METHODS}
            if image_row["mask"] is not None:
                scored.append(row["image_id"])
                counted = self._count(image_row, maps, class_indices)
                counts = {m: counts[m] + counted[m] for m in METHODS}
        table = pa.Table.from_pydict({"image_id": scored}, schema=COUNT_SCHEMA)
        return table, {
            COUNTS: {m: to_lists(value) for m, value in counts.items()},
            CRITERIA: {m: to_lists(value) for m, value in criteria.items()},
            "num_rows": len(scored),
        }

    def _judge(
        self, image_row: Mapping[str, Any], maps: Mapping[str, np.ndarray]
    ) -> dict[str, CriterionSums]:
        """The label-free criteria, at the stored resolution of the maps."""
        image = decode_image(image_row["image"], image_row["image_id"])
        height, width = next(iter(maps.values())).shape[1:]
        colours = resize(image, (width, height), Image.Resampling.BOX).reshape(-1, 3)
        return {
            method: criterion_sums(
                (stored.max(axis=0) / np.float32(STORED_LEVELS)).ravel(),
                colours.astype(float),
                self.num_thresholds,
            )
            for method, stored in maps.items()
        }

    def _count(
        self,
        image_row: Mapping[str, Any],
        maps: Mapping[str, np.ndarray],
        class_indices: np.ndarray,
    ) -> dict[str, ThresholdCounts]:
        ground_truth = decode_mask(image_row["mask"], image_row["image_id"])
        return {
            method: count_thresholds(
                upsample_stored(stored, ground_truth.shape),
                class_indices,
                ground_truth,
                self.num_categories,
                self.num_thresholds,
            )
            for method, stored in maps.items()
        }


def to_lists(sums: ThresholdCounts | CriterionSums) -> dict[str, Any]:
    """JSON form of additive sums."""
    return {name: np.asarray(value).tolist() for name, value in vars(sums).items()}


def from_lists(kind: type[Additive], content: Mapping[str, Any]) -> Additive:
    """Inverse of `to_lists`."""
    arrays: dict[str, Any] = {name: np.array(value) for name, value in content.items()}
    return kind(**arrays)
