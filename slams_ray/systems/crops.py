"""Samples of the systems whose trainings draw more with a crop than its place (numpy)."""

import importlib
from dataclasses import dataclass

import numpy as np

from slams_ray.training.samples import LabelledCrops, PseudoLabelledCrops, Row, multi_hot

DROPOUT = 0.1
"""Share of the feature channels that AMN drops."""
NO_CLASS = -1
SLIC_COMPACTNESS = 10


@dataclass(frozen=True, kw_only=True)
class ConditionedCrops(PseudoLabelledCrops):
    """Crops with pixel labels, image labels and the feature channels that dropout keeps."""

    num_classes: int
    num_features: int

    def sample(
        self, row: Row, rng: np.random.Generator, filler: Row | None = None
    ) -> dict[str, np.ndarray]:
        """Returns image, box and target with labels (C,) uint8 and kept (F,) uint8."""
        crop = super().sample(row, rng)
        labels = multi_hot(row["image_labels"], self.num_classes)
        kept = (rng.random(self.num_features) >= DROPOUT).astype(np.uint8)
        return crop | {"labels": labels, "kept": kept}


@dataclass(frozen=True, kw_only=True)
class DeepCrops(LabelledCrops):
    """Labelled crops with the branches that stochastic depth keeps."""

    depth: int
    drop_path: float

    def sample(
        self, row: Row, rng: np.random.Generator, filler: Row | None = None
    ) -> dict[str, np.ndarray]:
        """Returns a labelled crop with kept: (depth, 2) float32, 0 or 1 / (share that is kept)."""
        crop = super().sample(row, rng)
        share = 1 - np.linspace(0, self.drop_path, self.depth)[:, None]
        kept = (rng.random((self.depth, 2)) < share) / share
        return crop | {"kept": kept.astype(np.float32)}


@dataclass(frozen=True)
class ErasedClassCrops(LabelledCrops):
    """Labelled crops with the class to erase."""

    def sample(
        self, row: Row, rng: np.random.Generator, filler: Row | None = None
    ) -> dict[str, np.ndarray]:
        """Returns a labelled crop with erased: () int64, a present class counted from 0, or -1."""
        crop = super().sample(row, rng)
        present = np.flatnonzero(crop["labels"])
        erased = rng.choice(present) if len(present) else NO_CLASS
        return crop | {"erased": np.array(erased, np.int64)}


@dataclass(frozen=True, kw_only=True)
class PatchedCrops(LabelledCrops):
    """Labelled crops with the mask that splits them into two patches."""

    regions: str
    num_regions: int

    def sample(
        self, row: Row, rng: np.random.Generator, filler: Row | None = None
    ) -> dict[str, np.ndarray]:
        """Returns a labelled crop with visible: (crop, crop) uint8, 0 in the hidden regions."""
        crop = super().sample(row, rng)
        return crop | {"visible": self._visible(crop["image"], rng)}

    def _visible(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        of_pixel = slic_regions if self.regions == "slic" else grid_regions
        regions = of_pixel(image, self.num_regions)
        number = int(regions.max()) + 1
        hidden = rng.integers(number, size=max(1, number // 2))
        return (~np.isin(regions, hidden)).astype(np.uint8)


def grid_regions(image: np.ndarray, num_regions: int) -> np.ndarray:
    """(H, W) region of each pixel, from 0: the cells of a square grid."""
    cells = max(1, round(num_regions**0.5))
    rows, columns = (np.arange(side) * cells // side for side in image.shape[:2])
    return rows[:, None] * cells + columns[None]


def slic_regions(image: np.ndarray, num_regions: int) -> np.ndarray:
    """(H, W) region of each pixel, from 0: SLIC superpixels of scikit-image."""
    slic = importlib.import_module("skimage.segmentation").slic
    return slic(image, n_segments=num_regions, compactness=SLIC_COMPACTNESS, start_label=0)
