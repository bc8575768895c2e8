"""Samples of the semantic encoder: crops, some of them degraded."""

from dataclasses import dataclass

import numpy as np

from slams_ray.data.augmentation import random_degradation
from slams_ray.training.samples import LabelledCrops, Row


@dataclass(frozen=True, kw_only=True)
class DegradedCrops(LabelledCrops):
    """Labelled crops, some of them softly masked or dimmed at random."""

    masked_fraction: float
    dimmed_fraction: float

    def sample(
        self, row: Row, rng: np.random.Generator, filler: Row | None = None
    ) -> dict[str, np.ndarray]:
        """Returns a labelled crop and degradation: (cells, cells) float32 soft mask in [0, 1]."""
        sample = super().sample(row, rng)
        sample["degradation"] = random_degradation(
            rng, masked_fraction=self.masked_fraction, dimmed_fraction=self.dimmed_fraction
        )
        return sample
