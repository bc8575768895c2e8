"""What all trainings on image labels share: labelled crops, and evaluation by multi-label mAP."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from slams_ray.config import TrainingConfig
from slams_ray.data.image import decode_image
from slams_ray.data.transforms import normalise
from slams_ray.networks.activation_network import classification_scores
from slams_ray.training.task import LabelledCrops, Row, Sampler, multi_hot


class ImageLabelTask:
    """Task that trains on labelled crops and evaluates the network on whole images."""

    inference: Mapping[str, Any] | None = None

    def __init__(self, training: TrainingConfig, class_names: Sequence[str]) -> None:
        self.training = training
        self.class_names = class_names
        self.num_classes = len(class_names) - 1

    @property
    def sampler(self) -> Sampler:
        return LabelledCrops(self.training, self.num_classes)

    def score(self, network: nn.Module, image: torch.Tensor) -> torch.Tensor:
        """Returns (1, C) scores of a (1, 3, H, W) normalised image."""
        return classification_scores(network(image))

    @torch.inference_mode()
    def evaluate(self, network: nn.Module, rows: Iterable[Row]) -> dict[str, np.ndarray]:
        """Scores whole images. Their longer side is resized to the middle of the training range.

        Returns:
            scores (N, C) float32 and labels (N, C) uint8.
        """
        device = next(network.parameters()).device
        long_side_px = sum(self.training.long_side_px) // 2
        scores = [np.zeros((0, self.num_classes), np.float32)]
        labels = [np.zeros((0, self.num_classes), np.uint8)]
        for row in rows:
            image = Image.fromarray(decode_image(row["image"], row["image_id"]))
            factor = long_side_px / max(image.size)
            size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
            pixels = torch.from_numpy(np.array(image.resize(size, Image.Resampling.BILINEAR)))
            normalised = normalise(pixels[None].to(device))
            scores.append(self.score(network, normalised).float().cpu().numpy())
            labels.append(multi_hot(row["image_labels"], self.num_classes)[None])
        return {"scores": np.concatenate(scores), "labels": np.concatenate(labels)}

    def summarise(self, results: Sequence[dict[str, np.ndarray]]) -> dict[str, float]:
        return {"map": mean_average_precision(results)}


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
