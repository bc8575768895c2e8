"""Answers of the service: palette PNG, or JSON with run-length encoded regions."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from slams_ray.data.image import ImageLimits
from slams_ray.errors import DataError
from slams_ray.model.model import Decoded, Model, Prediction

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
    found: dict[int, Answer] = {}
    decoded: dict[int, Decoded] = {}
    for index, (data, _) in enumerate(requests):
        try:
            decoded[index] = model.decode(data, "the image", limits)
        except DataError as error:
            found[index] = error
    predictions = model.predict_decoded(list(decoded.values()))
    for index, prediction in zip(decoded, predictions, strict=True):
        _, wants_json = requests[index]
        found[index] = to_json(prediction) if wants_json else prediction.to_png()
    return [found[index] for index in range(len(requests))]


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
