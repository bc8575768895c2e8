"""Answers of the service: palette PNG, or JSON with run-length encoded regions."""

from typing import Any

import numpy as np

from slams_ray.data.image import ImageLimits
from slams_ray.model.model import Model, Prediction


def answer(model: Model, data: bytes, as_json: bool, limits: ImageLimits) -> bytes | dict[str, Any]:
    """Segments an encoded image.

    Raises:
        DataError: it is no image, or exceeds the limits.
    """
    found = model.predict_bytes(data, "the image", limits)
    return to_json(found) if as_json else found.to_png()


def to_json(found: Prediction) -> dict[str, Any]:
    """Returns size, and name, mean confidence and COCO RLE of each object class in the labels."""
    from pycocotools import mask as coco_mask

    regions = []
    for class_index in np.unique(found.labels):
        if class_index == 0:
            continue
        pixels = found.labels == class_index
        encoded = coco_mask.encode(np.asfortranarray(pixels, np.uint8))
        regions.append(
            {
                "class": found.class_names[class_index],
                "class_index": int(class_index),
                "confidence": round(float(found.confidence[pixels].mean()), 6),
                "rle": {"size": encoded["size"], "counts": encoded["counts"].decode()},
            }
        )
    height, width = found.labels.shape
    return {"height": height, "width": width, "regions": regions}
