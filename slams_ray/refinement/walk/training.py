"""The edge network learns from confident labels where objects end."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from slams_ray.config import BackboneConfig, TrainingConfig
from slams_ray.data.transforms import normalise, valid_mask
from slams_ray.errors import ConfigError
from slams_ray.metrics import IGNORE_INDEX
from slams_ray.networks.activation_network import ActivationNetwork
from slams_ray.networks.checkpoint import load_network
from slams_ray.networks.edge_network import EdgeNetwork
from slams_ray.networks.weights import NO_WEIGHTS, load_backbone_weights
from slams_ray.refinement.walk.affinity_loss import (
    KINDS,
    affinity_loss,
    affinity_sums,
    affinity_terms,
    pair_counts,
)
from slams_ray.training.global_batch import mean_over_workers
from slams_ray.training.samples import PseudoLabelledCrops, Row, Sampler
from slams_ray.training.task import Batch, TrainingModule

TRAINING_RADIUS = 10
UNIFORM_CONTRAST = 0.02
"""Edges whose standard deviation within an image is lower are alike everywhere."""
Averaging = Literal["batch", "image"]
_MEAN_COUNTS = "mean_pair_counts"


class AffinityModule(TrainingModule):
    """Affinity loss on confident labels, ignoring the band between them and padding."""

    network: EdgeNetwork

    def __init__(
        self, network: EdgeNetwork, backbone: BackboneConfig, radius: int, averaging: Averaging
    ) -> None:
        super().__init__(network, backbone)
        self.radius = radius
        self.averaging = averaging

    def prepare(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        if self.averaging == "image":
            return batch
        mean = mean_over_workers(pair_counts(batch["target"], self.radius))
        return batch | {_MEAN_COUNTS: mean.expand(len(batch["target"]), -1)}

    def forward(
        self, batch: Batch, draw: np.random.Generator, observe: bool
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        images = normalise(batch["image"], batch["box"])
        logits = self.network(images)
        target = batch["target"]
        sums, counts = affinity_sums(logits, target, self.radius)
        if _MEAN_COUNTS in batch:
            counts = batch[_MEAN_COUNTS]
        elif self.averaging == "batch":
            counts = mean_over_workers(counts)
        terms = affinity_terms(sums, counts)
        metrics = {f"loss_{kind}": terms[:, i].mean().detach() for i, kind in enumerate(KINDS)}
        metrics["labelled_pixels"] = (target != IGNORE_INDEX).float().mean()
        metrics |= edge_metrics(logits.detach(), valid_mask(batch["box"], images.shape[-1]))
        return affinity_loss(terms).mean(), metrics


def edge_metrics(logits: torch.Tensor, valid: torch.Tensor) -> dict[str, torch.Tensor]:
    """What shows a collapse: the mean edge, near 0 or 1 where all are alike, and its contrast.

    Args:
        logits: (B, h, w).
        valid: (B, 1, H, W) 1 on image, 0 on padding.
    """
    edges = logits.float().sigmoid()
    share = F.interpolate(valid, size=edges.shape[-2:], mode="area")[:, 0]
    area = share.sum(dim=(1, 2)).clamp(min=1)
    mean = (edges * share).sum(dim=(1, 2)) / area
    variance = ((edges - mean[:, None, None]).square() * share).sum(dim=(1, 2)) / area
    return {"edge_mean": mean.mean(), "edge_contrast": variance.sqrt().mean()}


def edge_warnings(metrics: Mapping[str, float]) -> list[str]:
    """Warnings for the last `edge_mean` and `edge_contrast` of a training."""
    if "edge_mean" not in metrics:
        return []
    mean, contrast = metrics["edge_mean"], metrics["edge_contrast"]
    if contrast >= UNIFORM_CONTRAST:
        return []
    found = "everywhere" if mean > 0.5 else "nowhere"
    return [
        f"collapse of the edge network: it finds edges {found} (mean {mean:.3f}, contrast "
        f"{contrast:.3f}), so the walk does nothing useful. Train longer, lower "
        "affinity.training.learning_rate, or narrow affinity.pair so that more pixels are labelled"
    ]


class AffinityTask:
    """Builds the edge network; what it is worth shows in the maps that walk.

    Args:
        backbone: with the weights of a classifier trained on other data (IRN).
        radius: pairs nearer than this teach it, in cells of stride 4. Below 32 cells a side 3 to 5.
        averaging: what each of the three terms is a mean over. "batch" takes all pairs of the
            global batch (IRN); "image" takes those of an image, then the images, as the other
            trainings do, so that an image with little object counts as much as others.
        classifier: bytes of the CAM classifier's checkpoint, whose backbone it takes where
            `backbone` names no weights; None leaves random ones.
    """

    inference: Mapping[str, Any] | None = None

    def __init__(
        self,
        training: TrainingConfig,
        backbone: BackboneConfig,
        class_names: Sequence[str],
        radius: int = TRAINING_RADIUS,
        averaging: Averaging = "batch",
        classifier: bytes | None = None,
    ) -> None:
        self.training = training
        self.backbone = backbone
        self.class_names = class_names
        self.radius = radius
        self.averaging: Averaging = averaging
        self.classifier = classifier
        self.architecture: dict[str, Any] = {
            "backbone_name": backbone.name,
            "output_stride": backbone.output_stride,
            "dilate": backbone.dilate,
        }

    def build(self) -> TrainingModule:
        network = EdgeNetwork(**self.architecture)
        if self.classifier is None or self.backbone.weights != NO_WEIGHTS:
            load_backbone_weights(network.backbone, self.backbone.weights)
        else:
            _take_backbone(network, self.classifier, self.class_names)
        return AffinityModule(network, self.backbone, self.radius, self.averaging)

    @property
    def sampler(self) -> Sampler:
        return PseudoLabelledCrops(self.training)

    def evaluate(self, network: nn.Module, rows: Iterable[Row]) -> dict[str, np.ndarray]:
        return {}

    def summarise(self, results: Sequence[dict[str, np.ndarray]]) -> dict[str, float]:
        return {}


def _take_backbone(network: EdgeNetwork, classifier: bytes, class_names: Sequence[str]) -> None:
    """Copies the weights of a classifier's backbone.

    Raises:
        ConfigError: it is another architecture.
    """
    trained = load_network(classifier, "classifier", "activation_network", class_names)
    assert isinstance(trained, ActivationNetwork)
    try:
        network.backbone.load_state_dict(trained.backbone.state_dict())
    except RuntimeError as error:
        raise ConfigError(
            "the classifier has another backbone than the edge network: give both the same "
            f"backbone.name ({error})"
        ) from error
