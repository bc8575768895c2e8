"""Turns files of another program into shards of maps or pseudo labels."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from slams_ray import storage
from slams_ray.artifacts import digest
from slams_ray.data.image import check_mask, decode_mask, encode_mask, read_file
from slams_ray.data.image_trace import TracedMapper
from slams_ray.data.imported import LABELS_SUFFIX, MAPS_SUFFIX, read_maps
from slams_ray.data.schema import DatasetDescription
from slams_ray.data.stored_maps import IMAGE_COLUMNS, PSEUDO_LABEL_SCHEMA, activation_schema
from slams_ray.errors import DataError
from slams_ray.metrics import confusion_matrix


class ImportMapsMapper(TracedMapper):
    """Adds a column of imported maps to a shard.

    Args:
        column: name of the new column.
        directory: directory with the maps of each image.
    """

    def __init__(self, column: str, directory: str) -> None:
        self.column = column
        self.directory = directory

    def __call__(
        self, tables: Mapping[str, pa.Table], payload: None
    ) -> tuple[pa.Table, dict[str, Any]]:
        table = tables["activations"] if "activations" in tables else tables["images"]
        found = [self._read(row) for row in tables["images"].to_pylist()]
        others = [name for name in table.column_names if name not in IMAGE_COLUMNS]
        schema = activation_schema([*others, self.column])
        columns = {name: table[name] for name in schema.names if name != self.column}
        imported = pa.Table.from_pydict(columns | {self.column: found}, schema=schema)
        return imported, {"num_rows": imported.num_rows}

    def _read(self, row: Mapping[str, Any]) -> bytes:
        image_id = row["image_id"]
        self.enter(image_id)
        labels, size = row["image_labels"], (row["height"], row["width"])
        if not labels:
            return b""
        path = storage.join(self.directory, image_id + MAPS_SUFFIX)
        return read_maps(read_file(path), path, labels, size).tobytes()


class ImportLabelsMapper(TracedMapper):
    """Writes label maps as pseudo labels, and scores them where the image has a mask.

    Args:
        directory: directory with the label map of each image; None takes the masks of the images.
    """

    def __init__(self, description: DatasetDescription, directory: str | None) -> None:
        self.description = description
        self.directory = directory

    def __call__(
        self, tables: Mapping[str, pa.Table], payload: None
    ) -> tuple[pa.Table, dict[str, Any]]:
        """Returns the pseudo-label shard, and a confusion matrix."""
        num_all_classes = len(self.description.class_names)
        confusion = np.zeros((num_all_classes, num_all_classes + 1), np.int64)
        rows = []
        for row in tables["images"].to_pylist():
            labels = self._read(row)
            if row["mask"] is not None:
                truth = decode_mask(row["mask"], row["image_id"])
                confusion += confusion_matrix(truth, labels, num_all_classes)
            data = encode_mask(labels, self.description.palette)
            rows.append({"image_id": row["image_id"], "refined": data, "pseudo_label": data})
        summary = {
            "num_rows": len(rows),
            "confusion": confusion.tolist(),
            "labels_digest": digest([(row["image_id"], row["pseudo_label"]) for row in rows]),
        }
        return pa.Table.from_pylist(rows, schema=PSEUDO_LABEL_SCHEMA), summary

    def _read(self, row: Mapping[str, Any]) -> np.ndarray:
        """Returns the (H, W) uint8 label map of an image."""
        image_id = row["image_id"]
        self.enter(image_id)
        if self.directory is None:
            if row["mask"] is None:
                raise DataError(
                    f"image {image_id} has no mask, but system masks learns from masks: leave it "
                    "out of the training list"
                )
            return decode_mask(row["mask"], image_id)
        path = storage.join(self.directory, image_id + LABELS_SUFFIX)
        labels = decode_mask(read_file(path), path)
        size = (row["height"], row["width"])
        check_mask(labels, size, len(self.description.class_names), path)
        return labels
