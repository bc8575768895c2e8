"""CAM: the maps of an image classifier (docs/method.md, CAM baseline).

CAM is the baseline of every comparison, and other systems can start from its classifier.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from slams_ray.config import ClassifierConfig, PipelineConfig
from slams_ray.data.transforms import normalise, valid_mask
from slams_ray.networks.activation_network import ActivationNetwork, classification_scores
from slams_ray.networks.weights import load_backbone_weights
from slams_ray.systems.classification import ImageLabelTask, classifier_loss
from slams_ray.systems.system import NetworkTraining, System
from slams_ray.training.task import Batch, TrainingModule

STAGE = "train_classifier"


class ClassifierModule(TrainingModule):
    """Trains with the multi-label soft margin loss on the mean of the maps."""

    network: ActivationNetwork

    def forward(
        self, batch: Batch, draw: np.random.Generator, observe: bool
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        logits = self.network(normalise(batch["image"], batch["box"]))
        valid = valid_mask(batch["box"], batch["image"].shape[1])
        valid = F.interpolate(valid, size=logits.shape[-2:], mode="area")
        scores = classification_scores(logits, valid)
        correct = ((scores > 0) == batch["labels"].bool()).float().mean()
        return classifier_loss(scores, batch["labels"]).mean(), {"label_accuracy": correct}


class ClassifierTask(ImageLabelTask):
    """Builds the CAM classifier."""

    def __init__(self, config: ClassifierConfig, class_names: Sequence[str]) -> None:
        super().__init__(config.training, class_names)
        self.config = config
        self.architecture: dict[str, Any] = {
            "backbone_name": config.backbone.name,
            "output_stride": config.backbone.output_stride,
            "dilate": config.backbone.dilate,
            "num_classes": self.num_classes,
        }

    def build(self) -> TrainingModule:
        network = ActivationNetwork(**self.architecture)
        load_backbone_weights(network.backbone, self.config.backbone.weights)
        return ClassifierModule(network, self.config.backbone)


def classifier_training(config: PipelineConfig) -> NetworkTraining:
    """Returns the training of the classifier, which other systems may start from."""
    classifier = config.classifier
    return NetworkTraining(
        stage=STAGE,
        label="classifier",
        config=classifier,
        backbone=classifier.backbone,
        make_task=lambda class_names, checkpoints: ClassifierTask(classifier, class_names),
    )


SYSTEM = System(
    name="cam",
    title="CAM",
    map_stage=STAGE,
    trainings=lambda config: [classifier_training(config)],
)
