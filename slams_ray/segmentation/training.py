"""Trains the segmentation network on pseudo labels (docs/method.md, Segmentation network)."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from slams_ray.config import SegmentationConfig
from slams_ray.data.transforms import normalise
from slams_ray.metrics import IGNORE_INDEX
from slams_ray.networks.segmentation_network import SegmentationNetwork
from slams_ray.networks.weights import load_backbone_weights
from slams_ray.training.task import Batch, PseudoLabelledCrops, Row, Sampler, TrainingModule


class SegmentationTraining(TrainingModule):
    """Trains with the cross-entropy of pseudo labels. Ignored pixels and padding do not count."""

    network: SegmentationNetwork

    def forward(
        self, batch: Batch, draw: np.random.Generator, observe: bool
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        logits = self.network(normalise(batch["image"], batch["box"]))
        target = batch["target"].long()
        loss = segmentation_loss(logits, target, IGNORE_INDEX).mean()
        labelled = (target != IGNORE_INDEX).float().mean()
        return loss, {"labelled_pixels": labelled}


class SegmentationTask:
    """Builds the segmentation network. The evaluate stage scores it.

    Args:
        max_side_px: largest longer side of stored images; None if every size was kept.
    """

    def __init__(
        self,
        config: SegmentationConfig,
        class_names: Sequence[str],
        max_side_px: int | None = None,
    ) -> None:
        self.config = config
        self.class_names = class_names
        self.inference: Mapping[str, Any] | None = asdict(config.inference) | {
            "max_side_px": max_side_px
        }
        self.architecture: dict[str, Any] = {
            "backbone_name": config.backbone.name,
            "output_stride": config.backbone.output_stride,
            "dilate": config.backbone.dilate,
            "num_classes": len(class_names) - 1,
            "head": config.head,
        }

    def build(self) -> TrainingModule:
        network = SegmentationNetwork(**self.architecture)
        load_backbone_weights(network.backbone, self.config.backbone.weights)
        return SegmentationTraining(network, self.config.backbone)

    @property
    def sampler(self) -> Sampler:
        return PseudoLabelledCrops(self.config.training)

    def evaluate(self, network: nn.Module, rows: Iterable[Row]) -> dict[str, np.ndarray]:
        return {}

    def summarise(self, results: Sequence[dict[str, np.ndarray]]) -> dict[str, float]:
        return {}


def segmentation_loss(
    logits: torch.Tensor, target: torch.Tensor, ignore_index: int
) -> torch.Tensor:
    """Mean cross-entropy over the pixels of each image that are not ignored, (B,).

    It is 0 for an image whose pixels are all ignored.

    Args:
        logits: (B, K, h, w); they are resized bilinearly to the target.
        target: (B, H, W) int64.
    """
    resized = F.interpolate(
        logits.float(), size=target.shape[-2:], mode="bilinear", align_corners=False
    )
    pixel = F.cross_entropy(resized, target, ignore_index=ignore_index, reduction="none")
    counted = (target != ignore_index).sum(dim=(1, 2)).clamp(min=1)
    return pixel.sum(dim=(1, 2)) / counted
