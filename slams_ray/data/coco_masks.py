"""Masks of COCO annotations: polygons and run lengths, checked before they are decoded."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from slams_ray.errors import DataError
from slams_ray.metrics import IGNORE_INDEX


@dataclass(frozen=True, kw_only=True)
class CocoMask:
    """Renders the annotations of one image, in annotation order.

    Attributes:
        annotations: (segmentation, is_crowd, class_index) of each; 255 for classes not chosen.
        crowd: "background" leaves crowd regions background (ground truth of ReCAM and CLIMS);
            "ignore" sets them to 255 where no instance covers them.
    """

    annotations: tuple[tuple[Any, bool, int], ...]
    size: tuple[int, int]
    crowd: str
    source: str

    def __call__(self, height: int, width: int) -> np.ndarray:
        if (height, width) != self.size:
            raise DataError(
                f"{self.source}: the image is {height} x {width}, its annotations are for "
                f"{self.size[0]} x {self.size[1]} (height x width)"
            )
        mask = np.zeros((height, width), np.uint8)
        crowds = [a for a in self.annotations if a[1]]
        instances = [a for a in self.annotations if not a[1]]
        for segmentation, _, class_index in crowds:
            if self.crowd == "ignore" or class_index == IGNORE_INDEX:
                mask[self._region(segmentation)] = IGNORE_INDEX
        for segmentation, _, class_index in instances:
            mask[self._region(segmentation)] = class_index
        return mask

    def _region(self, segmentation: Any) -> np.ndarray:
        height, width = self.size
        try:
            if isinstance(segmentation, list):
                _check_polygons(segmentation)
                encoded = coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width))
            elif isinstance(segmentation["counts"], list):
                _check_counts(segmentation["counts"], height * width)
                encoded = coco_mask.frPyObjects(segmentation, height, width)
            else:
                # Decoding allocates memory for this size, whatever the size of the image.
                _check_size(segmentation["size"], self.size)
                encoded = segmentation
            region = coco_mask.decode(encoded).astype(bool)
        except Exception as error:
            raise DataError(f"{self.source}: a segmentation cannot be decoded: {error}") from error
        if region.shape != self.size:
            raise DataError(
                f"{self.source}: a segmentation has the size {region.shape}, its image {self.size} "
                "(height, width)"
            )
        return region


def _check_polygons(polygons: list[list[float]]) -> None:
    # pycocotools does not check coordinates: one that is not finite crashes the process.
    for polygon in polygons:
        if len(polygon) < 6 or len(polygon) % 2 or not np.isfinite(polygon).all():
            raise ValueError("a polygon needs at least three pairs of finite coordinates")


def _check_counts(counts: list[int], num_pixels: int) -> None:
    # With fewer counts than pixels, pycocotools returns uninitialised memory.
    if min(counts) < 0 or sum(counts) != num_pixels:
        raise ValueError(f"run lengths sum to {sum(counts)}, expected {num_pixels}")


def _check_size(found: list[int], size: tuple[int, int]) -> None:
    if tuple(found) != size:
        raise ValueError(f"its size is {found}, that of its image {list(size)} (height, width)")
