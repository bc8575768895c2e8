"""Activation shard, images and masks to what every threshold gives, CAM and SLAMs in one pass."""

import base64
import io
import zlib
from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
from PIL import Image

from slams_ray.data.image import decode_image, decode_mask, resize
from slams_ray.data.image_trace import TracedMapper
from slams_ray.data.stored_maps import METHODS, STORED_LEVELS, unpack_maps, upsample_stored
from slams_ray.seeds.label_free import CriterionSums, criterion_sums
from slams_ray.seeds.threshold import ThresholdCounts, count_thresholds

COUNT_SCHEMA = pa.schema([("image_id", pa.string())])
COUNTS, CRITERIA = "counts", "criteria"

Additive = TypeVar("Additive", ThresholdCounts, CriterionSums)


class CountMapper(TracedMapper):
    """Sums `ThresholdCounts` over the images that have a mask, `CriterionSums` over all.

    Counts are kept apart by halves, image by image in turn: what is learnt on one can be judged on
    the other.
    """

    def __init__(self, num_categories: int, num_thresholds: int) -> None:
        self.num_categories = num_categories
        self.num_thresholds = num_thresholds

    def __call__(
        self, tables: Mapping[str, pa.Table], payload: None
    ) -> tuple[pa.Table, dict[str, Any]]:
        counts = {
            m: [ThresholdCounts.zeros(self.num_categories, self.num_thresholds)] * 2
            for m in METHODS
        }
        criteria = {m: CriterionSums.zeros(self.num_thresholds) for m in METHODS}
        scored: list[str] = []
        pairs = zip(tables["images"].to_pylist(), tables["activations"].to_pylist(), strict=True)
        for image_row, row in pairs:
            self.enter(row["image_id"])
            class_indices = np.asarray(row["image_labels"], np.int64)
            maps = {
                m: unpack_maps(row[m], class_indices, row["height"], row["width"]) for m in METHODS
            }
            if len(class_indices):
                judged = self._judge(image_row, maps)
                criteria = {m: criteria[m] + judged[m] for m in METHODS}
            if image_row["mask"] is not None:
                counted = self._count(image_row, maps, class_indices)
                half = len(scored) % 2
                for method in METHODS:
                    counts[method][half] = counts[method][half] + counted[method]
                scored.append(row["image_id"])
        table = pa.Table.from_pydict({"image_id": scored}, schema=COUNT_SCHEMA)
        return table, {
            COUNTS: {m: [pack(half) for half in halves] for m, halves in counts.items()},
            CRITERIA: {m: pack(value) for m, value in criteria.items()},
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


def pack(sums: ThresholdCounts | CriterionSums) -> dict[str, str]:
    """JSON form of additive sums, compressed: kilobytes for 80 classes, not a megabyte."""
    return {name: _pack_array(np.asarray(value)) for name, value in vars(sums).items()}


def unpack(kind: type[Additive], content: Mapping[str, str]) -> Additive:
    """Inverse of `pack`."""
    arrays: dict[str, Any] = {name: _unpack_array(text) for name, text in content.items()}
    return kind(**arrays)


def _pack_array(values: np.ndarray) -> str:
    buffer = io.BytesIO()
    np.save(buffer, values, allow_pickle=False)
    return base64.b85encode(zlib.compress(buffer.getvalue())).decode("ascii")


def _unpack_array(text: str) -> np.ndarray:
    data = zlib.decompress(base64.b85decode(text))
    return np.load(io.BytesIO(data), allow_pickle=False)
