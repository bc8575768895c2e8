"""Interfaces of the four trainings: a network with its losses, and samples from rows."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import nn

from slams_ray.config import BackboneConfig, TrainingConfig
from slams_ray.data.image import decode_image, decode_mask
from slams_ray.data.transforms import jitter_colours, random_crop
from slams_ray.networks.backbone import (
    Backbone,
    freeze_batch_norm,
    freeze_batch_norm_affine,
    freeze_blocks,
)
from slams_ray.networks.frozen_batch_norm import merge_frozen_batch_norm

Row = Mapping[str, Any]
"""One row of an image shard: image_id, image (encoded bytes), height, width, image_labels, mask."""
Batch = Mapping[str, torch.Tensor]
Array = TypeVar("Array", np.ndarray, torch.Tensor)


class TrainingModule(nn.Module):
    """A network and its loss in one forward pass, so that DDP sees one call per step.

    forward(batch, draw, observe) returns the loss, averaged over images, and detached metrics.
    `draw` is a generator seeded by the random seed and the step, so all workers draw the same
    numbers. `observe` is true at logged steps and requests metrics that cost extra time.

    Attributes:
        slow_parameters: prefixes of the parameters of `network` that learn at the learning rate.
            The others are new and learn at `head_multiplier` times it.
        progress: share of the steps that are done, in [0, 1), for weights that change in training.
    """

    slow_parameters: tuple[str, ...] = ("backbone.",)
    progress: float = 0.0

    def __init__(self, network: nn.Module, backbone: BackboneConfig) -> None:
        super().__init__()
        self.network = network
        self.freeze_batch_norm = backbone.freeze_batch_norm
        freeze_blocks(self._backbone, backbone.frozen_blocks)
        if backbone.freeze_batch_norm_affine:
            freeze_batch_norm_affine(self._backbone)
        if backbone.freeze_batch_norm:
            merge_frozen_batch_norm(self._backbone)

    def prepare(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Adds what the loss must know of the global batch, one row for each image.

        It is called once a step, on the whole share of a worker, before the share is split for
        gradient accumulation. A `forward` that gets a batch without it takes the batch as whole.
        """
        return batch

    @property
    def exported(self) -> nn.Module:
        """The network that the checkpoint holds."""
        return self.network

    @property
    def _backbone(self) -> Backbone:
        backbone = self.network.get_submodule("backbone")
        assert isinstance(backbone, Backbone)
        return backbone

    def train(self, mode: bool = True) -> "TrainingModule":
        super().train(mode)
        if self.freeze_batch_norm:
            # Only the backbone: the statistics of a new head are not learnt yet.
            freeze_batch_norm(self._backbone)
        return self


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


class Task(Protocol):
    """One training: builds the network, makes samples from rows, and evaluates the result.

    Attributes:
        inference: inference settings for the checkpoint; None if the network does not predict.
    """

    class_names: Sequence[str]
    architecture: dict[str, Any]
    inference: Mapping[str, Any] | None

    @property
    def sampler(self) -> Sampler: ...
    def build(self) -> TrainingModule: ...
    def evaluate(self, network: nn.Module, rows: Iterable[Row]) -> dict[str, np.ndarray]: ...
    def summarise(self, results: Sequence[dict[str, np.ndarray]]) -> dict[str, float]: ...


PAIRS = "pairs"
"""Entry of a batch: (N, 2) int64, image and class (from 0) of each of its `pair_labels`, sorted."""
CHOSEN_LABELS = "chosen_labels"
"""Entry of a batch: (B, C) uint8, some of the present classes; only where a sampler draws them."""


def with_pairs(samples: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Adds `PAIRS` to samples with labels, on the host: on a GPU their number would wait for it."""
    if "labels" not in samples:
        return dict(samples)
    return {**samples, PAIRS: np.argwhere(pair_labels(samples)).astype(np.int64)}


def pair_labels(batch: Mapping[str, Array]) -> Array:
    """Returns the labels whose classes form pairs with their image: the chosen, or all present."""
    return batch.get(CHOSEN_LABELS, batch["labels"])


def pairs_of(batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the image and the class (from 0) of each of the N pairs, (N,) int64 each.

    A batch without `PAIRS`, such as a part of one, waits for the device here.
    """
    if PAIRS in batch:
        image_of, class_of = batch[PAIRS].unbind(1)
    else:
        image_of, class_of = pair_labels(batch).nonzero(as_tuple=True)
    return image_of, class_of


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
    """Sampler of the trainings on pseudo labels: random crops of images and their labels."""

    def sample(
        self, row: Row, rng: np.random.Generator, filler: Row | None = None
    ) -> dict[str, np.ndarray]:
        """Returns image (crop, crop, 3) uint8, box (4,) int32 and target (crop, crop) uint8."""
        pseudo_label = decode_mask(row["pseudo_label"], row["image_id"])
        crop, target, box = self.crop(row, rng, pseudo_label)
        assert target is not None
        return {"image": crop, "box": box, "target": target}
