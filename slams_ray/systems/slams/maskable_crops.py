"""Samples of the activation network: crops, and what decides how they are masked."""

from dataclasses import dataclass

import numpy as np

from slams_ray.training.samples import CHOSEN_LABELS, LabelledCrops, Row, multi_hot

MASK_THRESHOLDS = (0.25, 0.75)


@dataclass(frozen=True, kw_only=True)
class MaskableCrops(LabelledCrops):
    """Labelled crops with a filler image and mask thresholds, where these are asked for.

    Attributes:
        num_chosen: most classes of a crop that are masked; None masks all present classes.
    """

    with_filler: bool
    with_thresholds: bool
    num_chosen: int | None = None

    @property
    def needs_filler(self) -> bool:
        return self.with_filler

    def sample(
        self, row: Row, rng: np.random.Generator, filler: Row | None = None
    ) -> dict[str, np.ndarray]:
        """Returns a labelled crop with further entries.

        With a filler: filler, filler_box and filler_labels, a crop of another image. With
        thresholds: mask_threshold, (C,) float32. With a number: `CHOSEN_LABELS`, (C,) uint8.
        """
        crop = super().sample(row, rng)
        sample = dict(crop)
        if self.with_filler:
            if filler is None:
                other = {name: np.zeros_like(value) for name, value in crop.items()}
            else:
                other = LabelledCrops(self.training, self.num_classes).sample(filler, rng)
            sample["filler"] = other["image"]
            sample["filler_box"] = other["box"]
            sample["filler_labels"] = other["labels"]
        if self.with_thresholds:
            thresholds = rng.uniform(*MASK_THRESHOLDS, self.num_classes)
            sample["mask_threshold"] = thresholds.astype(np.float32)
        if self.num_chosen is not None:
            present = np.flatnonzero(crop["labels"])
            chosen = rng.permutation(present)[: self.num_chosen]
            sample[CHOSEN_LABELS] = multi_hot((chosen + 1).tolist(), self.num_classes)
        return sample
