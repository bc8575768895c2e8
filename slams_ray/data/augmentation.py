"""Augmentation of one image from a random seed (numpy).

Data-loading processes import this module. It does not import torch, for which each of them would
wait two seconds.
"""

import numpy as np
from PIL import Image

from slams_ray.metrics import IGNORE_INDEX


def random_crop(
    image: np.ndarray,
    mask: np.ndarray | None,
    rng: np.random.Generator,
    *,
    crop_px: int,
    long_side_px: tuple[int, int],
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
    """Resizes, mirrors and crops an image at random, and pads it if it is smaller than the crop.

    Args:
        image: (H, W, 3) uint8.
        mask: (H, W) uint8, transformed as the image (nearest neighbour, padding 255), or None.

    Returns:
        image (crop, crop, 3) uint8, mask (crop, crop) uint8 or None, and box (4,) int32: top, left,
        height and width of the image within the crop; the rest is padding.
    """
    long_side = int(rng.integers(long_side_px[0], long_side_px[1] + 1))
    factor = long_side / max(image.shape[:2])
    size = (max(1, round(image.shape[1] * factor)), max(1, round(image.shape[0] * factor)))
    picture = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))
    labels = None
    if mask is not None:
        labels = np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST))
    if rng.random() < 0.5:
        picture = picture[:, ::-1]
        labels = None if labels is None else labels[:, ::-1]
    top, source_top, height = _place(picture.shape[0], crop_px, rng)
    left, source_left, width = _place(picture.shape[1], crop_px, rng)
    target = np.s_[top : top + height, left : left + width]
    source = np.s_[source_top : source_top + height, source_left : source_left + width]
    cropped = np.zeros((crop_px, crop_px, 3), np.uint8)
    cropped[target] = picture[source]
    cropped_labels = None
    if labels is not None:
        cropped_labels = np.full((crop_px, crop_px), IGNORE_INDEX, np.uint8)
        cropped_labels[target] = labels[source]
    return cropped, cropped_labels, np.array([top, left, height, width], np.int32)


def _place(length: int, crop: int, rng: np.random.Generator) -> tuple[int, int, int]:
    """Returns offset in the crop, offset in the image, and extent, along one axis."""
    slack = int(rng.integers(0, abs(length - crop) + 1))
    return (slack, 0, length) if length < crop else (0, slack, crop)


def jitter_colours(
    image: np.ndarray, rng: np.random.Generator, ranges: tuple[float, float, float, float]
) -> np.ndarray:
    """Changes brightness, contrast, saturation and hue at random, in random order.

    The distribution is that of torchvision's ColorJitter, drawn from `rng`.

    Args:
        image: (H, W, 3) uint8.
        ranges: largest relative change of brightness, contrast and saturation, and largest shift of
            the hue in turns, in [0, 0.5]. An image is not changed in what has range 0.

    Returns:
        (H, W, 3) uint8.
    """
    # A process waits two seconds for torchvision, and most trainings change no colours.
    from torchvision.transforms import functional as torchvision_functional

    change = (
        torchvision_functional.adjust_brightness,
        torchvision_functional.adjust_contrast,
        torchvision_functional.adjust_saturation,
        torchvision_functional.adjust_hue,
    )
    picture = Image.fromarray(image)
    for index in rng.permutation(len(ranges)):
        largest = ranges[index]
        if largest:
            centre = 0.0 if index == 3 else 1.0
            low = centre - largest if index == 3 else max(centre - largest, 0.0)
            picture = change[index](picture, float(rng.uniform(low, centre + largest)))
    return np.asarray(picture)


def random_degradation(
    rng: np.random.Generator, *, masked_fraction: float, dimmed_fraction: float, cells: int = 6
) -> np.ndarray:
    """Draws a (cells, cells) float32 soft mask in [0, 1]; all ones if the image stays unchanged.

    A masked image keeps a random region: a coarse random field after a sigmoid. A dimmed image is
    multiplied by one factor in [0.2, 1]. An image can be both masked and dimmed.
    """
    field = np.ones((cells, cells))
    masked, dimmed = rng.random(2) < (masked_fraction, dimmed_fraction)
    if masked:
        noise = rng.normal(0, 3, (cells, cells)) + rng.normal(0, 2)
        field = 1 / (1 + np.exp(-noise))
    if dimmed:
        field = field * rng.uniform(0.2, 1.0)
    return field.astype(np.float32)
