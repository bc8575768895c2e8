"""The CAM classifier: baseline, and initialisation of the activation network (method section 4)."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from slams_ray.config import ClassifierConfig
from slams_ray.core.losses import classifier_loss
from slams_ray.data.transforms import normalise, valid_mask
from slams_ray.models.activation_network import ActivationNetwork, classification_scores
from slams_ray.models.backbone import load_backbone_weights
from slams_ray.tasks.classification import mean_average_precision, score_images
from slams_ray.tasks.training_module import Batch, Row, TrainingModule, labelled_crop


class ClassifierTraining(TrainingModule):
    """Multi-label soft margin on the mean of the maps."""

    network: ActivationNetwork

    def forward(self, batch: Batch, step: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        logits = self.network(normalise(batch["image"], batch["box"]))
        valid = valid_mask(batch["box"], batch["image"].shape[1])
        valid = F.interpolate(valid, size=logits.shape[-2:], mode="area")
        scores = classification_scores(logits, valid)
        correct = ((scores > 0) == batch["labels"].bool()).float().mean()
        return classifier_loss(scores, batch["labels"]).mean(), {"label_accuracy": correct}


class ClassifierTask:
    """Builds, samples and evaluates the CAM classifier."""

    def __init__(self, config: ClassifierConfig, class_names: Sequence[str]) -> None:
        self.config = config
        self.class_names = class_names
        self.num_classes = len(class_names) - 1
        self.architecture: dict[str, Any] = {
            "backbone_name": config.backbone.name,
            "output_stride": config.backbone.output_stride,
            "num_classes": self.num_classes,
        }

    def build(self) -> TrainingModule:
        network = ActivationNetwork(**self.architecture)
        load_backbone_weights(network.backbone, self.config.backbone.weights)
        return ClassifierTraining(network, self.config.backbone.freeze_batch_norm)

    def sample(self, row: Row, rng: np.random.Generator) -> dict[str, np.ndarray]:
        training = self.config.training
        return labelled_crop(row, rng, self.num_classes, training.crop_px, training.long_side_px)

    def evaluate(self, network: nn.Module, rows: Iterable[Row]) -> dict[str, np.ndarray]:
        long_side = sum(self.config.training.long_side_px) // 2
        device = next(network.parameters()).device
        return score_images(
            lambda image: classification_scores(network(image)),
            rows,
            self.num_classes,
            long_side,
            device,
        )

    def summarise(self, results: Sequence[dict[str, np.ndarray]]) -> dict[str, float]:
        return {"map": mean_average_precision(results)}
