"""AMN: a network that is told the image labels learns confident labels of the CAM maps.

Lee et al., CVPR 2022. With features f, image labels y, and K = C + 1 classes with background:

- logits = sum of dilated classifiers of dropout(f V y), V linear without a bias;
- target of a pixel: 1 - smoothing for its label, smoothing / C for each other class;
- L = half the mean cross-entropy over background pixels and half that over object pixels of an
  image, then the mean over images. A side without a pixel is left out; 255 and padding are ignored.

Labels are sampled on the logit grid at the centres of its cells. Maps are softmax probabilities of
the mean logits (`ConditionedNetwork.maps_of_logits`). Dropout of whole channels is drawn with the
sample, so that it does not depend on the number of workers (our reading).
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from slams_ray.config import AmnConfig, BackboneConfig
from slams_ray.metrics import IGNORE_INDEX
from slams_ray.networks.backbone import build_backbone
from slams_ray.networks.conditioned_network import ConditionedNetwork
from slams_ray.systems.after_cam import AfterCamTask, copy_weights, system_after_cam
from slams_ray.systems.crops import DROPOUT, ConditionedCrops
from slams_ray.systems.label_losses import balanced_loss, labels_at
from slams_ray.systems.maps import collapse_metrics, crops_of, resized
from slams_ray.training.samples import Row, Sampler
from slams_ray.training.task import Batch, TrainingModule


class AmnModule(TrainingModule):
    """Trains with label-smoothed cross-entropy, balanced between objects and background."""

    network: ConditionedNetwork

    def __init__(
        self, network: ConditionedNetwork, backbone: BackboneConfig, config: AmnConfig
    ) -> None:
        super().__init__(network, backbone)
        self.config = config

    def forward(
        self, batch: Batch, draw: np.random.Generator, observe: bool
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        images, pixels = crops_of(batch)
        labels = batch["labels"].float()
        kept = batch["kept"].float() / (1 - DROPOUT) if self.training else None
        logits = self.network(images, labels, kept).float()
        target = labels_at(batch["target"], logits)
        loss = balanced_loss(logits, target, self.config.smoothing).mean()
        maps = logits.detach().softmax(dim=1)[:, 1:]
        metrics = {"labelled_pixels": (target != IGNORE_INDEX).float().mean()}
        valid = resized(pixels, logits.shape[-2:])
        return loss, metrics | collapse_metrics(maps, labels, valid)


class AmnTask(AfterCamTask[AmnConfig]):
    """Builds the network. It is told the labels, so only its maps can be scored."""

    @property
    def sampler(self) -> Sampler:
        name, stride = self.backbone.name, self.backbone.output_stride
        return ConditionedCrops(
            self.training,
            num_classes=self.num_classes,
            num_features=build_backbone(name, stride).num_features,
        )

    def build(self) -> TrainingModule:
        network = ConditionedNetwork(**self.architecture)
        copy_weights(self.start(self.config.initialise_from_cam).backbone, network.backbone)
        # The first convolution is not trained, as published.
        frozen = max(1, self.backbone.frozen_blocks)
        return AmnModule(network, replace(self.backbone, frozen_blocks=frozen), self.config)

    def evaluate(self, network: nn.Module, rows: Iterable[Row]) -> dict[str, np.ndarray]:
        return {}

    def summarise(self, results: Sequence[dict[str, np.ndarray]]) -> dict[str, float]:
        return {}


SYSTEM = system_after_cam("amn", "AMN", AmnTask, pixel_labels="confident")
