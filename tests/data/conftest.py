import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

Annotation = dict[str, Any]

CATEGORIES = [
    {"id": 90, "name": "toothbrush"},
    {"id": 3, "name": "cat"},
    {"id": 7, "name": "dog"},
]


@pytest.fixture
def write_image() -> Callable[..., None]:
    """Writes a random RGB image of (height, width)."""

    def write(path: Path, height: int = 20, width: int = 30) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(height * width).integers(0, 256, (height, width, 3))
        Image.fromarray(pixels.astype(np.uint8)).save(path)

    return write


@pytest.fixture
def write_coco(tmp_path: Path) -> Callable[..., str]:
    """Writes an annotation file for images of 20 x 30 (height x width); returns the root.

    Images 12 and 34 are listed unless others are given; an annotation needs image_id, category_id
    and segmentation.
    """

    def write(annotations: list[Annotation], images: list[Annotation] | None = None) -> str:
        if images is None:
            images = [
                {"id": i, "file_name": f"COCO_train_{i:012d}.jpg", "height": 20, "width": 30}
                for i in (12, 34)
            ]
        numbered = [{"id": n, "iscrowd": 0} | a for n, a in enumerate(annotations, start=1)]
        content = {"images": images, "annotations": numbered, "categories": CATEGORIES}
        path = tmp_path / "coco/annotations/instances_train.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
        return str(tmp_path / "coco")

    return write


@pytest.fixture
def draw_by_pycocotools() -> Callable[..., np.ndarray]:
    """Draws an image's mask by the protocol, with pycocotools' own API for every region."""

    def draw(
        annotation_file: str, image_id: int, index_of: dict[int, int], crowd: str
    ) -> np.ndarray:
        api = COCO(annotation_file)
        image = api.loadImgs(image_id)[0]
        annotations = api.loadAnns(api.getAnnIds(imgIds=image_id))
        mask = np.zeros((image["height"], image["width"]), np.uint8)
        if crowd == "ignore":
            for annotation in annotations:
                if annotation["iscrowd"]:
                    mask[api.annToMask(annotation) == 1] = 255
        for annotation in annotations:
            if not annotation["iscrowd"]:
                mask[api.annToMask(annotation) == 1] = index_of[annotation["category_id"]]
        return mask

    return draw


@pytest.fixture
def write_voc(tmp_path: Path, write_image: Callable[..., None]) -> Callable[..., str]:
    """Writes a VOC tree of `masks` (image id -> (H, W) uint8 indices); returns the root."""

    def write(masks: dict[str, np.ndarray]) -> str:
        root = tmp_path / "voc"
        for name in ("SegmentationClass", "ImageSets/Segmentation"):
            (root / name).mkdir(parents=True, exist_ok=True)
        for image_id, mask in masks.items():
            write_image(root / "JPEGImages" / f"{image_id}.jpg", *mask.shape)
            picture = Image.fromarray(mask)
            picture.putpalette(list(range(256)) * 3)
            picture.save(root / "SegmentationClass" / f"{image_id}.png")
        (root / "ImageSets/Segmentation/train.txt").write_text("\n".join(masks) + "\n")
        return str(root)

    return write
