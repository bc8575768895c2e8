"""Predictor of labels: a plain callable from batch dictionary to batch dictionary."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import nn

from slams_ray.data.batches import Enter, Indexed
from slams_ray.data.transforms import pyramid
from slams_ray.inference.image_batches import Batch, Predictor

Refine = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(H, W, 3) uint8 image and (K, H, W) float32 probabilities -> (H, W) uint8 class indices."""


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
            scores = self._scores(images)
            for index, prediction in zip(indices, _best(scores)[1], strict=True):
                found["prediction"][index] = prediction
            if self.refine is not None:
                for index, refined in zip(indices, self._refined(images, scores), strict=True):
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
        scores = self._scores(images)
        if self.refine is None:
            chosen, labels = _best(scores)
        else:
            labels = np.stack(self._refined(images, scores))
            indices = torch.from_numpy(labels).to(scores.device, torch.int64)[:, None]
            chosen = scores.gather(1, indices)[:, 0]
        probability = chosen / self._num_passes
        return list(zip(labels, probability.cpu().numpy(), strict=True))

    @property
    def _num_passes(self) -> int:
        return len(self.scales) * (2 if self.flip else 1)

    @torch.inference_mode()
    def _scores(self, images: Sequence[np.ndarray]) -> torch.Tensor:
        """Returns the (B, K, H, W) sum of the softmax of images of one size."""
        size = images[0].shape[:2]
        total: torch.Tensor | None = None
        for inputs in pyramid(self.pixels(images), self.scales, self.flip):
            logits = nn.functional.interpolate(
                self.network(inputs).float(), size=size, mode="bilinear", align_corners=False
            )
            scores = logits.softmax(dim=1)
            if self.flip:
                scores = scores[: len(images)] + scores[len(images) :].flip(-1)
            total = scores if total is None else total + scores
        assert total is not None
        return total

    def _refined(self, images: Sequence[np.ndarray], scores: torch.Tensor) -> list[np.ndarray]:
        assert self.refine is not None
        return [
            self.refine(image, own / self._num_passes)
            for image, own in zip(images, scores.cpu().numpy(), strict=True)
        ]


def _best(scores: torch.Tensor) -> tuple[torch.Tensor, np.ndarray]:
    """The largest of (B, K, H, W) scores, (B, H, W), and its (B, H, W) uint8 class indices."""
    # argmax takes 2.5 times as long as max on a CPU (21 classes, 256 x 192).
    best, indices = scores.max(dim=1)
    return best, indices.to(torch.uint8).cpu().numpy()
