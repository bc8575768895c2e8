"""What all trainings on image labels share: labelled crops, and evaluation by multi-label mAP."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from slams_ray.config import TrainingConfig
from slams_ray.data.batches import Indexed, batches_of_one_size, work_ahead
from slams_ray.data.image import decode_image
from slams_ray.data.transforms import normalise
from slams_ray.inference.image_batches import GPU_BATCH, GPU_BATCH_PIXELS
from slams_ray.networks.activation_network import classification_scores
from slams_ray.training.optimisation import mixed_precision
from slams_ray.training.samples import LabelledCrops, Row, Sampler, multi_hot


class ImageLabelTask:
    """Task that trains on labelled crops and evaluates the network on whole images.

    Attributes:
        evaluation_batch: images of one size that are scored together; None chooses by device.
    """

    inference: Mapping[str, Any] | None = None
    evaluation_batch: int | None = None

    def __init__(self, training: TrainingConfig, class_names: Sequence[str]) -> None:
        self.training = training
        self.class_names = class_names
        self.num_classes = len(class_names) - 1

    @property
    def sampler(self) -> Sampler:
        return LabelledCrops(self.training, self.num_classes)

    def score(self, network: nn.Module, images: torch.Tensor) -> torch.Tensor:
        """Returns (B, C) scores of (B, 3, H, W) normalised images."""
        return classification_scores(network(images))

    @torch.inference_mode()
    def evaluate(self, network: nn.Module, rows: Iterable[Row]) -> dict[str, np.ndarray]:
        """Scores whole images. Their longer side is resized to the middle of the training range.

        The precision is that of the training.

        Returns:
            scores (N, C) float32 and labels (N, C) uint8, in the order of the rows.
        """
        device = next(network.parameters()).device
        on_gpu = device.type == "cuda"
        batch_size = self.evaluation_batch or (GPU_BATCH if on_gpu else 1)
        labels: list[np.ndarray] = []
        indices: list[int] = []
        scores = [torch.zeros((0, self.num_classes), device=device)]
        images = self._images(rows, labels, ahead=2 * batch_size if on_gpu else 0)
        for batch in batches_of_one_size(images, batch_size, GPU_BATCH_PIXELS):
            indices += [index for index, _ in batch]
            pixels = torch.from_numpy(np.stack([image for _, image in batch])).to(device)
            with mixed_precision(self.training, device):
                scores.append(self.score(network, normalise(pixels)).float())
        found = torch.cat(scores).cpu().numpy()
        return {
            "scores": found[np.argsort(indices)],
            "labels": np.array(labels, np.uint8).reshape(-1, self.num_classes),
        }

    def _images(
        self, rows: Iterable[Row], labels: list[np.ndarray], ahead: int
    ) -> Iterator[Indexed]:
        """Yields (index, resized image) of each row, and adds its labels to a list."""
        long_side_px = sum(self.training.long_side_px) // 2

        def resized(numbered: tuple[int, Row]) -> Indexed:
            index, row = numbered
            image = Image.fromarray(decode_image(row["image"], row["image_id"]))
            factor = long_side_px / max(image.size)
            size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
            return index, np.array(image.resize(size, Image.Resampling.BILINEAR))

        def labelled() -> Iterator[tuple[int, Row]]:
            for index, row in enumerate(rows):
                labels.append(multi_hot(row["image_labels"], self.num_classes))
                yield index, row

        return work_ahead(resized, labelled(), ahead)

    def summarise(self, results: Sequence[dict[str, np.ndarray]]) -> dict[str, float]:
        return {"mean_average_precision": mean_average_precision(results)}


def mean_average_precision(results: Sequence[dict[str, np.ndarray]]) -> float:
    """Returns the mean average precision over the classes that occur, nan if none occurs.

    Args:
        results: scores and labels from each worker, as `ImageLabelTask.evaluate` returns them.
    """
    from sklearn.metrics import average_precision_score

    scores = np.concatenate([r["scores"] for r in results])
    labels = np.concatenate([r["labels"] for r in results])
    occurring = labels.any(axis=0)
    if not occurring.any():
        return float("nan")
    return float(
        average_precision_score(labels[:, occurring], scores[:, occurring], average="macro")
    )


def classifier_loss(scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Multi-label soft margin loss (IRN), mean over C.

    Args:
        scores, labels: (B, C).

    Returns:
        (B,).
    """
    return F.binary_cross_entropy_with_logits(
        scores.float(), labels.float(), reduction="none"
    ).mean(dim=1)
