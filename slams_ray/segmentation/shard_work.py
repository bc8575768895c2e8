"""Turns an image shard into a prediction shard, and scores images that have a mask."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from slams_ray.data.image import decode_mask, encode_mask
from slams_ray.data.image_trace import TracedMapper
from slams_ray.data.schema import DatasetDescription
from slams_ray.inference.predictors import SegmentationPredictor
from slams_ray.metrics import confusion_matrix

PREDICTION_SCHEMA = pa.schema([("image_id", pa.string()), ("prediction", pa.binary())])


class EvaluateMapper(TracedMapper):
    """Segments every image of a shard and compares it with its mask, if it has one."""

    def __init__(self, description: DatasetDescription, predictor: SegmentationPredictor) -> None:
        self.description = description
        self.predictor = predictor

    def __call__(
        self, tables: Mapping[str, pa.Table], payload: None
    ) -> tuple[pa.Table, dict[str, Any]]:
        """Returns the prediction shard, and the confusion matrix of images with a mask."""
        num_all_classes = len(self.description.class_names)
        confusion = np.zeros((num_all_classes, num_all_classes + 1), np.int64)
        batch = self.predictor(tables["images"].to_pydict(), self.entrance)
        num_scored = 0
        for image_id, mask, prediction in zip(
            batch["image_id"], batch["mask"], batch["prediction"], strict=True
        ):
            if mask is not None:
                confusion += confusion_matrix(
                    decode_mask(mask, image_id), prediction, num_all_classes
                )
                num_scored += 1
        columns = {
            "image_id": batch["image_id"],
            "prediction": [encode_mask(p, self.description.palette) for p in batch["prediction"]],
        }
        table = pa.Table.from_pydict(columns, schema=PREDICTION_SCHEMA)
        summary = {
            "num_rows": table.num_rows,
            "num_scored": num_scored,
            "confusion": confusion.tolist(),
        }
        return table, summary
