"""Turns an image shard into a prediction shard, and scores images that have a mask."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from slams_ray.data.image import decode_mask, encode_mask
from slams_ray.data.image_trace import TracedMapper
from slams_ray.data.schema import DatasetDescription
from slams_ray.inference.segmentation_predictor import SegmentationPredictor
from slams_ray.metrics import confusion_matrix

REFINED_CONFUSION = "refined_confusion"
"""Entry of a shard's summary: the confusion matrix of refined predictions."""
PREDICTION_SCHEMA = pa.schema([("image_id", pa.string()), ("prediction", pa.binary())])


class EvaluateMapper(TracedMapper):
    """Segments every image of a shard and compares it with its mask, if it has one."""

    def __init__(self, description: DatasetDescription, predictor: SegmentationPredictor) -> None:
        self.description = description
        self.predictor = predictor

    def __call__(
        self, tables: Mapping[str, pa.Table], payload: None
    ) -> tuple[pa.Table, dict[str, Any]]:
        """Returns the prediction shard, and the confusion matrix of images with a mask.

        If the predictor refines, the confusion matrix of the refined predictions is added. The
        shard keeps the predictions as they were before.
        """
        batch = self.predictor(tables["images"].to_pydict(), self.entrance)
        columns = {
            "image_id": batch["image_id"],
            "prediction": [encode_mask(p, self.description.palette) for p in batch["prediction"]],
        }
        table = pa.Table.from_pydict(columns, schema=PREDICTION_SCHEMA)
        summary = {
            "num_rows": table.num_rows,
            "num_scored": sum(mask is not None for mask in batch["mask"]),
            "confusion": self._confusion(batch, "prediction"),
        }
        if "refined_prediction" in batch:
            summary[REFINED_CONFUSION] = self._confusion(batch, "refined_prediction")
        return table, summary

    def _confusion(self, batch: Mapping[str, list[Any]], column: str) -> list[list[int]]:
        num_all_classes = len(self.description.class_names)
        confusion = np.zeros((num_all_classes, num_all_classes + 1), np.int64)
        for image_id, mask, prediction in zip(
            batch["image_id"], batch["mask"], batch[column], strict=True
        ):
            if mask is not None:
                truth = decode_mask(mask, image_id)
                confusion += confusion_matrix(truth, prediction, num_all_classes)
        return confusion.tolist()
