"""COCO instances JSON with run-length encoded regions of each image."""

import json
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
from pycocotools import mask as coco_mask
from scipy import ndimage

from slams_ray import storage
from slams_ray.data.schema import DatasetDescription
from slams_ray.exports.labelled_image import LabelledImage

ANNOTATIONS_NAME = "annotations.json"
_NEIGHBOURS = np.ones((3, 3), bool)


class CocoWriter:
    """Writes annotations.json. Pixels with 255 belong to no region, as background does.

    Args:
        connected: whether each connected region of a class is an annotation of its own, or all
            pixels of a class are one.
    """

    NAMES: ClassVar = (ANNOTATIONS_NAME,)
    """Files and directories that it writes."""

    def __init__(
        self, output: str, description: DatasetDescription, connected: bool = False
    ) -> None:
        self.output = output
        self.description = description
        self.connected = connected
        self._images: list[tuple[dict[str, Any], list[dict[str, Any]]]] = []

    def write(self, image: LabelledImage) -> None:
        """Encodes the regions of one image."""
        height, width = image.labels.shape
        entry = {"file_name": image.file_name, "height": height, "width": width}
        present = np.unique(image.labels)
        regions = [
            self._region(pixels, int(class_index))
            for class_index in present
            if 0 < class_index <= self.description.num_classes
            for pixels in self._masks(image.labels == class_index)
        ]
        self._images.append((entry, regions))

    def _masks(self, pixels: np.ndarray) -> Iterator[np.ndarray]:
        if not self.connected:
            yield pixels
            return
        yield from connected_regions(pixels)

    def _region(self, pixels: np.ndarray, class_index: int) -> dict[str, Any]:
        encoded = coco_mask.encode(np.asfortranarray(pixels, np.uint8))
        return {
            "category_id": self.description.category_ids[class_index],
            "segmentation": {"size": encoded["size"], "counts": encoded["counts"].decode()},
            "area": int(pixels.sum()),
            "bbox": coco_mask.toBbox(encoded).tolist(),
            "iscrowd": 0,
        }

    def finish(self) -> None:
        """Writes annotations.json, with images in the order of their file names."""
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        ordered = sorted(self._images, key=lambda found: found[0]["file_name"])
        for image_id, (entry, regions) in enumerate(ordered, start=1):
            images.append({"id": image_id} | entry)
            for region in regions:
                annotations.append({"id": len(annotations) + 1, "image_id": image_id} | region)
        categories = [
            {"id": category_id, "name": name}
            for category_id, name in zip(
                self.description.category_ids[1:], self.description.class_names[1:], strict=True
            )
        ]
        content = {
            "info": {"description": f"labels of {self.description.name}"},
            "images": images,
            "annotations": annotations,
            "categories": categories,
        }
        path = storage.join(self.output, ANNOTATIONS_NAME)
        storage.write_bytes(path, json.dumps(content).encode())


def connected_regions(pixels: np.ndarray) -> Iterator[np.ndarray]:
    """Yields the (H, W) bool mask of each connected region of a mask, from its top downwards.

    Pixels that touch at a side or corner are connected.
    """
    numbers, num_regions = ndimage.label(pixels, _NEIGHBOURS)
    for number in range(1, num_regions + 1):
        yield numbers == number
