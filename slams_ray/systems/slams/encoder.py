"""Trains the semantic encoder: an embedding per class (docs/method.md, Semantic encoder)."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from slams_ray.config import EncoderConfig
from slams_ray.data.transforms import normalise
from slams_ray.networks.semantic_encoder import (
    SIMILARITY_EPSILON,
    SemanticEncoder,
    semantic_similarity,
)
from slams_ray.networks.weights import load_backbone_weights
from slams_ray.systems.classification import ImageLabelTask
from slams_ray.systems.slams.degraded_crops import DegradedCrops
from slams_ray.systems.slams.losses import encoder_loss
from slams_ray.training.samples import Sampler
from slams_ray.training.task import Batch, TrainingModule

DEAD_PREFIX = "dead/"


class EncoderModule(TrainingModule):
    """Trains with the BCE of similarities and labels. Background counts as always present."""

    network: SemanticEncoder

    def forward(
        self, batch: Batch, draw: np.random.Generator, observe: bool
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        images = normalise(batch["image"], batch["box"])
        kept = F.interpolate(
            batch["degradation"][:, None],
            size=images.shape[-2:],
            mode="bilinear",
            align_corners=False,
        )
        present = F.pad(batch["labels"].bool(), (1, 0), value=True)
        embedding = self.network(images * kept)
        # Semantics learn from positives only, so s is detached for absent classes. The encoder
        # learns from both.
        semantics = self.network.semantics.expand_as(embedding)
        semantics = torch.where(present[..., None], semantics, semantics.detach())
        similarity = semantic_similarity(embedding, semantics)
        loss = encoder_loss(similarity, present).mean()
        objects = present[:, 1:]
        return loss, {
            "similarity_present": _mean_where(similarity[:, 1:], objects),
            "similarity_absent": _mean_where(similarity[:, 1:], ~objects),
            "similarity_background": similarity[:, 0].mean().detach(),
            "dead_semantics": (embedding.detach().sum(dim=2).amax(dim=0) == 0).sum().float(),
        }


def _mean_where(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return (values * mask).sum().detach() / mask.sum().clamp(min=1)


class EncoderTask(ImageLabelTask):
    """Builds and evaluates the semantic encoder, and samples its crops."""

    def __init__(self, config: EncoderConfig, class_names: Sequence[str]) -> None:
        super().__init__(config.training, class_names)
        self.config = config
        self.architecture: dict[str, Any] = {
            "backbone_name": config.backbone.name,
            "output_stride": config.backbone.output_stride,
            "dilate": config.backbone.dilate,
            "num_classes": self.num_classes,
            "embedding_dim": config.embedding_dim,
        }

    def build(self) -> TrainingModule:
        network = SemanticEncoder(**self.architecture)
        load_backbone_weights(network.backbone, self.config.backbone.weights)
        return EncoderModule(network, self.config.backbone)

    @property
    def sampler(self) -> Sampler:
        return DegradedCrops(
            self.training,
            self.num_classes,
            masked_fraction=self.config.masked_fraction,
            dimmed_fraction=self.config.dimmed_fraction,
        )

    def score(self, network: nn.Module, images: torch.Tensor) -> torch.Tensor:
        """Returns (B, C) similarities to the object classes."""
        assert isinstance(network, SemanticEncoder)
        return network.similarity(images)[:, 1:]

    def summarise(self, results: Sequence[dict[str, np.ndarray]]) -> dict[str, float]:
        """Returns mAP, and `dead/<class>` 1 for a class without similarity in all its images."""
        scores = np.concatenate([r["scores"] for r in results])
        labels = np.concatenate([r["labels"] for r in results]).astype(bool)
        highest = np.where(labels, scores, -1.0).max(axis=0, initial=-1.0)
        dead = (highest >= 0) & (highest <= SIMILARITY_EPSILON)
        names = [self.class_names[index + 1] for index in np.flatnonzero(dead).tolist()]
        return super().summarise(results) | {f"{DEAD_PREFIX}{name}": 1.0 for name in names}


def dead_semantics(metrics: Mapping[str, float]) -> list[str]:
    """Returns the names of the classes that `EncoderTask.summarise` found dead."""
    return [name.removeprefix(DEAD_PREFIX) for name in metrics if name.startswith(DEAD_PREFIX)]
