"""Samples of the trainings: random crops of the images of a shard, with their labels (numpy).

Data-loading processes import this module, and those of other samplers. None of them may import
torch, see `slams_ray.data.augmentation`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from slams_ray.config import TrainingConfig
from slams_ray.data.augmentation import jitter_colours, random_crop
from slams_ray.data.image import decode_image, decode_mask

Row = Mapping[str, Any]
"""One row of an image shard: image_id, image (encoded bytes), height, width, image_labels, mask."""
CHOSEN_LABELS = "chosen_labels"
"""Entry of a batch: (B, C) uint8, some of the present classes; only where a sampler draws them."""


class Sampler(Protocol):
    """Makes a training sample from a row.

    Every data-loading task gets a copy, so a sampler must be small and hold no network.

    Attributes:
        needs_filler: whether a sample needs a second image, the filler image.
    """

    @property
    def needs_filler(self) -> bool: ...
    def sample(
        self, row: Row, rng: np.random.Generator, filler: Row | None = None
    ) -> dict[str, np.ndarray]: ...


def multi_hot(class_indices: Sequence[int], num_classes: int) -> np.ndarray:
    """Converts class indices 1..C to a (C,) uint8 multi-hot vector."""
    labels = np.zeros(num_classes, np.uint8)
    labels[np.asarray(class_indices, int) - 1] = 1
    return labels


@dataclass(frozen=True)
class Crops:
    """Random crops of images; base of the samplers.

    Attributes:
        training: gives the side of a crop and the range of the image size.
    """

    training: TrainingConfig

    @property
    def needs_filler(self) -> bool:
        """Crops need no second image."""
        return False

    def crop(
        self, row: Row, rng: np.random.Generator, mask: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
        """Decodes and crops an image, and a mask with it; see `random_crop`.

        The colours of the image within the crop are changed as the training asks.
        """
        image, target, box = random_crop(
            decode_image(row["image"], row["image_id"]),
            mask,
            rng,
            crop_px=self.training.crop_px,
            long_side_px=self.training.long_side_px,
        )
        if any(self.training.colour_jitter):
            top, left, height, width = box
            inside = np.s_[top : top + height, left : left + width]
            image[inside] = jitter_colours(image[inside], rng, self.training.colour_jitter)
        return image, target, box


@dataclass(frozen=True)
class LabelledCrops(Crops):
    """Sampler of the trainings on image labels: random crops with the labels of the image.

    Attributes:
        with_pseudo_labels: whether rows have pseudo labels, which are cropped with the image.
    """

    num_classes: int
    with_pseudo_labels: bool = False

    def sample(
        self, row: Row, rng: np.random.Generator, filler: Row | None = None
    ) -> dict[str, np.ndarray]:
        """Returns image (crop, crop, 3) uint8, box (4,) int32 and labels (C,) uint8.

        With pseudo labels: target (crop, crop) uint8, too.
        """
        mask = None
        if self.with_pseudo_labels:
            mask = decode_mask(row["pseudo_label"], row["image_id"])
        crop, target, box = self.crop(row, rng, mask)
        labels = multi_hot(row["image_labels"], self.num_classes)
        sample = {"image": crop, "box": box, "labels": labels}
        return sample if target is None else sample | {"target": target}


@dataclass(frozen=True)
class PseudoLabelledCrops(Crops):
    """Sampler of the trainings on pseudo labels: random crops of images and their labels.

    Attributes:
        learn_masks: whether rows have a mask, which replaces the pseudo label unless it is None.
    """

    learn_masks: bool = False

    def sample(
        self, row: Row, rng: np.random.Generator, filler: Row | None = None
    ) -> dict[str, np.ndarray]:
        """Returns image (crop, crop, 3) uint8, box (4,) int32 and target (crop, crop) uint8."""
        label = row["mask"] if self.learn_masks else None
        label = decode_mask(row["pseudo_label"] if label is None else label, row["image_id"])
        crop, target, box = self.crop(row, rng, label)
        assert target is not None
        return {"image": crop, "box": box, "target": target}
