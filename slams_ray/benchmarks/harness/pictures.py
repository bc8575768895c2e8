"""Images with masks to measure on: generated ones, or photographs of a VOC tree."""

from pathlib import Path

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 375, 500
"""Usual size of VOC photographs."""
Picture = tuple[np.ndarray, np.ndarray]
"""(H, W, 3) uint8 image, and (H, W) uint8 class indices, 255 where unknown."""


def generated(num_pictures: int, height: int = HEIGHT, width: int = WIDTH) -> list[Picture]:
    """Generates blurred colour patches of three classes, with the noise of a photograph."""
    rng = np.random.default_rng(0)
    pictures = []
    for _ in range(num_pictures):
        truth = rng.integers(0, 3, (5, 7)).astype(np.uint8)
        colour = (rng.integers(0, 140, (5, 7, 3)) + 40 * truth[..., None]).astype(np.uint8)
        image = resized(colour, height, width, Image.Resampling.BICUBIC)
        grain = rng.normal(0, 4, image.shape)
        image = (image + grain).clip(0, 255).astype(np.uint8)
        pictures.append((image, resized(truth, height, width, Image.Resampling.NEAREST)))
    return pictures


def photographs(voc_dir: str, num_pictures: int) -> list[Picture]:
    """Reads images and masks of a VOC tree, evenly spaced in its training list."""
    root = Path(voc_dir)
    names = (root / "ImageSets/Segmentation/train.txt").read_text().split()
    pictures = []
    for name in names[:: max(1, len(names) // num_pictures)][:num_pictures]:
        image = np.array(Image.open(root / f"JPEGImages/{name}.jpg").convert("RGB"))
        pictures.append((image, np.array(Image.open(root / f"SegmentationClass/{name}.png"))))
    return pictures


def resized(array: np.ndarray, height: int, width: int, resampling: Image.Resampling) -> np.ndarray:
    """Resizes an image or mask."""
    return np.array(Image.fromarray(array).resize((width, height), resampling))
