"""Trains the segmentation network on pixel labels (docs/method.md, Segmentation network)."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from slams_ray.config import SegmentationConfig
from slams_ray.data.transforms import normalise, pyramid
from slams_ray.metrics import IGNORE_INDEX
from slams_ray.networks.segmentation_network import SegmentationNetwork
from slams_ray.networks.weights import load_backbone_weights
from slams_ray.segmentation.pixel_loss import segmentation_loss
from slams_ray.training.global_batch import mean_over_workers
from slams_ray.training.samples import PseudoLabelledCrops, Row, Sampler
from slams_ray.training.task import Batch, TrainingModule

_MEAN_LABELLED = "mean_labelled_pixels"


class SegmentationModule(TrainingModule):
    """Trains with the cross-entropy of pixel labels. Ignored pixels and padding do not count."""

    network: SegmentationNetwork

    def __init__(self, network: SegmentationNetwork, config: SegmentationConfig) -> None:
        super().__init__(network, config.backbone)
        self.averaging = config.averaging
        self.input_scales = config.input_scales

    def prepare(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return batch | {_MEAN_LABELLED: self._divisors(batch["target"])}

    def forward(
        self, batch: Batch, draw: np.random.Generator, observe: bool
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        images = normalise(batch["image"], batch["box"])
        target = batch["target"].long()
        divisors = batch[_MEAN_LABELLED] if _MEAN_LABELLED in batch else self._divisors(target)
        losses = [
            segmentation_loss(logits, target, divisors).mean() for logits in self._logits(images)
        ]
        return torch.stack(losses).sum(), {
            "labelled_pixels": (target != IGNORE_INDEX).float().mean()
        }

    def _divisors(self, target: torch.Tensor) -> torch.Tensor:
        """(B,) labelled pixels of each image, or their mean over the global batch."""
        labelled = (target != IGNORE_INDEX).sum(dim=(1, 2))
        if self.averaging == "image":
            return labelled
        return mean_over_workers(labelled[:, None]).expand(len(labelled))

    def _logits(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Logits at every scale; of several scales, their maximum on the largest grid as well."""
        found = [self.network(scaled) for scaled in pyramid(images, self.input_scales, flip=False)]
        if len(found) == 1:
            return found
        size = max(tuple(logits.shape[-2:]) for logits in found)
        resized = [
            F.interpolate(logits, size=size, mode="bilinear", align_corners=False)
            for logits in found
        ]
        return [*found, torch.stack(resized).amax(dim=0)]


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
        return SegmentationModule(network, self.config)

    @property
    def sampler(self) -> Sampler:
        return PseudoLabelledCrops(self.config.training, self.config.learn_masks)

    def evaluate(self, network: nn.Module, rows: Iterable[Row]) -> dict[str, np.ndarray]:
        return {}

    def summarise(self, results: Sequence[dict[str, np.ndarray]]) -> dict[str, float]:
        return {}
