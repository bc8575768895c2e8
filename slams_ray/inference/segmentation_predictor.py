"""Predictor of labels: a plain callable from batch dictionary to batch dictionary."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from slams_ray.data.batches import Enter, Indexed
from slams_ray.data.transforms import pyramid
from slams_ray.inference.image_batches import Batch, Predictor
from slams_ray.networks.resized_logits import ResizedLogits, softmax_sums

Refine = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(H, W, 3) uint8 image and (K, H, W) float32 probabilities -> (H, W) uint8 class indices."""


class _Summed(NamedTuple):
    """Softmax of images of one size, summed over all passes of the network.

    Attributes:
        largest: (B, H, W) largest sums of the pixels.
        labels: (B, H, W) uint8, the classes that have them.
        scores: (B, K, H, W) all sums, if they are refined.
    """

    largest: torch.Tensor
    labels: np.ndarray
    scores: torch.Tensor | None


class SegmentationPredictor(Predictor):
    """Segments images: argmax of the softmax summed over scales and mirror images.

    Args:
        refine: refines each prediction by its image, such as a CRF; None predicts only.
        scales, flip, device, batch_size: see `Predictor`.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        scales: tuple[float, ...],
        flip: bool,
        device: torch.device,
        batch_size: int | None = None,
        refine: Refine | None = None,
    ) -> None:
        super().__init__(scales=scales, flip=flip, device=device, batch_size=batch_size)
        self.network = network.to(device).eval()
        self.refine = refine

    def __call__(self, batch: Batch, enter: Enter | None = None) -> Batch:
        """Adds prediction: (H, W) uint8 class indices. Reads image_id and image (encoded bytes).

        With `refine` it adds refined_prediction, of the same form.

        Args:
            enter: see `decoded_batches`.
        """
        num_images = len(batch["image_id"])
        found: Batch = {"prediction": [None] * num_images}
        if self.refine is not None:
            found["refined_prediction"] = [None] * num_images

        def segment(group: list[Indexed]) -> None:
            indices, images = zip(*group, strict=True)
            summed = self._summed(images)
            for index, prediction in zip(indices, summed.labels, strict=True):
                found["prediction"][index] = prediction
            if summed.scores is not None:
                refinements = self._refined(images, summed.scores)
                for index, refined in zip(indices, refinements, strict=True):
                    found["refined_prediction"][index] = refined

        self.infer(batch, enter, segment)
        return batch | found

    def predict(self, image: np.ndarray) -> np.ndarray:
        """Returns (H, W) uint8 class indices of one (H, W, 3) uint8 image, after `refine`."""
        return self.predict_with_confidence(image)[0]

    def predict_with_confidence(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns class indices as `predict` does, and the probability of each.

        Returns:
            (H, W) uint8, and (H, W) float32 in [0, 1]: the mean softmax over scales and mirror
            images, before `refine`, of the class that is chosen after it.
        """
        return self._segmented([image])[0]

    def predict_each(self, images: Sequence[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Returns what `predict_with_confidence` does for each image.

        Images of one size share a forward, up to `batch_size` of them.
        """
        found: dict[int, tuple[np.ndarray, np.ndarray]] = {}

        def segment(group: list[Indexed]) -> None:
            indices, own = zip(*group, strict=True)
            found.update(zip(indices, self._segmented(own), strict=True))

        self.infer_decoded(images, segment)
        return [found[index] for index in range(len(images))]

    @torch.inference_mode()
    def _segmented(self, images: Sequence[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Labels and confidence of images of one size, in one forward."""
        chosen, labels, scores = self._summed(images)
        if scores is not None:
            labels = np.stack(self._refined(images, scores))
            indices = torch.from_numpy(labels).to(scores.device, torch.int64)[:, None]
            chosen = scores.gather(1, indices)[:, 0]
        probability = chosen / self._num_passes
        return list(zip(labels, probability.cpu().numpy(), strict=True))

    @property
    def _num_passes(self) -> int:
        return len(self.scales) * (2 if self.flip else 1)

    @torch.inference_mode()
    def _summed(self, images: Sequence[np.ndarray]) -> _Summed:
        size = images[0].shape[:2]
        passes = self._resized_logits(images, size)
        count, num_classes = passes[0].logits.shape[:2]
        device = passes[0].logits.device
        largest = torch.empty((count, *size), device=device)
        labels = torch.empty((count, *size), device=device, dtype=torch.uint8)
        scores = None
        if self.refine is not None:
            scores = torch.empty((count, num_classes, *size), device=device)
        for (of_images, rows), total in softmax_sums(passes):
            # argmax takes 2.5 times as long as max on a CPU (21 classes, 256 x 192).
            largest[of_images, rows], indices = total.max(dim=1)
            labels[of_images, rows] = indices.to(torch.uint8)
            if scores is not None:
                scores[of_images, :, rows] = total
        return _Summed(largest, labels.cpu().numpy(), scores)

    def _resized_logits(
        self, images: Sequence[np.ndarray], size: tuple[int, int]
    ) -> list[ResizedLogits]:
        """Logits of each scale, and of the mirror images, mirrored back."""
        found = []
        for inputs in pyramid(self.pixels(images), self.scales, self.flip):
            logits = self.network(inputs)
            found.append(ResizedLogits(logits[: len(images)], size))
            if self.flip:
                found.append(ResizedLogits(logits[len(images) :].flip(-1), size))
        return found

    def _refined(self, images: Sequence[np.ndarray], scores: torch.Tensor) -> list[np.ndarray]:
        assert self.refine is not None
        return [
            self.refine(image, own / self._num_passes)
            for image, own in zip(images, scores.cpu().numpy(), strict=True)
        ]
