"""Answers of the service: palette PNG, or JSON with run-length encoded regions."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from slams_ray.data.image import ImageLimits
from slams_ray.errors import DataError
from slams_ray.model.model import Model, Prediction

Answer = bytes | dict[str, Any] | DataError


def answer_each(
    model: Model, requests: Sequence[tuple[bytes, bool]], limits: ImageLimits
) -> list[Answer]:
    """Segments the images of several requests together.

    Args:
        requests: (encoded image, whether JSON is wanted).

    Returns:
        for each request a palette PNG or JSON, or the error of what is no image or exceeds the
        limits.
    """
    found = model.predict_each([data for data, _ in requests], "the image", limits)
    return [
        one if isinstance(one, DataError) else to_json(one) if wants_json else one.to_png()
        for one, (_, wants_json) in zip(found, requests, strict=True)
    ]


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
