"""ReCAM: a softmax classifier on the features under each map (Chen et al., CVPR 2022).

From a converged CAM network with features f and logits M = W f, N(M) = ReLU(M) / max:

- g_k = mean over pixels of N(M)_k f for each present class k, with gradients through both factors;
- SCE = cross-entropy of softmax(W' g_k) against k over all C classes, mean over present classes;
- L = multi-label soft margin loss + softmax_weight SCE, mean over images.

Maps are those of the head W W' (elementwise). The checkpoint holds this product, so it is an
ordinary activation network.
"""

from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from slams_ray.config import BackboneConfig, RecamConfig
from slams_ray.networks.activation_network import ActivationNetwork
from slams_ray.networks.map_norms import max_normalised
from slams_ray.systems.after_cam import AfterCamTask, copy_weights, system_after_cam
from slams_ray.systems.classification import classifier_loss
from slams_ray.systems.maps import (
    collapse_metrics,
    crops_of,
    mean_over_classes,
    mean_over_image,
    resized,
)
from slams_ray.training.task import Batch, TrainingModule


class RecamNetwork(ActivationNetwork):
    """The CAM classifier with a second head W' for features of one class.

    Args:
        architecture: arguments of `ActivationNetwork`.
    """

    def __init__(self, **architecture: Any) -> None:
        super().__init__(**architecture)
        self.second_head = nn.Linear(self.head.in_channels, self.head.out_channels, bias=False)
        self.architecture = architecture

    def folded(self) -> ActivationNetwork:
        """Returns an activation network with the head W W'."""
        weights = self.state_dict()
        second = weights.pop("second_head.weight")
        weights["head.weight"] = weights["head.weight"] * second[..., None, None]
        network = ActivationNetwork(**self.architecture)
        network.load_state_dict(weights)
        return network


class RecamModule(TrainingModule):
    """Trains both heads and the backbone; only the second head is new."""

    network: RecamNetwork
    slow_parameters = ("backbone.", "head.")

    def __init__(
        self, network: RecamNetwork, backbone: BackboneConfig, config: RecamConfig
    ) -> None:
        super().__init__(network, backbone)
        self.config = config

    @property
    def exported(self) -> ActivationNetwork:
        return self.network.folded()

    def forward(
        self, batch: Batch, draw: np.random.Generator, observe: bool
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        images, valid = crops_of(batch)
        labels = batch["labels"].float()
        features = self.network.backbone(images)
        logits = self.network.head(features)
        valid = resized(valid, logits.shape[-2:])
        margin = classifier_loss(mean_over_image(logits, valid), labels).mean()
        maps = max_normalised(logits, valid)
        second = self.network.second_head(features_of_classes(features.float(), maps, valid))
        softmax = softmax_loss(second, labels).mean()
        metrics = {
            "loss_classification": margin.detach(),
            "loss_softmax": softmax.detach(),
            "softmax_accuracy": softmax_accuracy(second.detach(), labels),
        } | collapse_metrics(maps.detach(), labels, valid)
        return margin + self.config.softmax_weight * softmax, metrics


def features_of_classes(
    features: torch.Tensor, maps: torch.Tensor, valid: torch.Tensor
) -> torch.Tensor:
    """(B, C, F) mean over the image of the features times each map.

    Args:
        features: (B, F, h, w).
        maps: (B, C, h, w).
        valid: (B, 1, h, w) 1 on image, 0 on padding.
    """
    share = valid / valid.sum(dim=(2, 3), keepdim=True).clamp(min=1)
    return torch.einsum("bchw,bfhw->bcf", maps * share, features)


def softmax_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """(B,) cross-entropy of the features of class k against k, mean over present classes.

    Args:
        logits: (B, C, C), row k for the features of class k.
        labels: (B, C) multi-hot.
    """
    target = torch.arange(labels.shape[1], device=labels.device).expand(labels.shape)
    losses = F.cross_entropy(logits.float().transpose(1, 2), target, reduction="none")
    return mean_over_classes(losses, labels)


def softmax_accuracy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Share of the present classes whose features are classified as that class."""
    right = logits.argmax(dim=2) == torch.arange(labels.shape[1], device=labels.device)
    return (right * labels).sum() / labels.sum().clamp(min=1)


class RecamTask(AfterCamTask[RecamConfig]):
    """Builds the network with two heads from the CAM classifier."""

    def build(self) -> TrainingModule:
        network = RecamNetwork(**self.architecture)
        trained = self.trained_classifier()
        copy_weights(trained.backbone, network.backbone)
        copy_weights(trained.head, network.head)
        return RecamModule(network, self.backbone, self.config)


SYSTEM = system_after_cam("recam", "ReCAM", RecamTask)
