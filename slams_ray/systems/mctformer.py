"""MCTformer: a vision transformer with one token for each class (Xu et al., CVPR 2022, V2).

L = L_cls(scores of the class tokens, y) + L_cls(mean over the image of the patches' logits, y),
averaged over images. The score of a class is the mean of its token's channels.

Stochastic depth leaves out both branches of a block at random, more often in later blocks. The
sampler draws what is kept, so that N workers take the step of one.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import nn

from slams_ray.config import BackboneConfig, MctformerConfig, PipelineConfig
from slams_ray.errors import ConfigError
from slams_ray.networks.activation_network import classification_scores
from slams_ray.networks.extras import require_extra
from slams_ray.networks.map_norms import max_normalised
from slams_ray.networks.token_network import TokenNetwork
from slams_ray.networks.vision_transformer import VitSizes, build_vit, read_vit, whole_patches
from slams_ray.systems.after_cam import advice
from slams_ray.systems.classification import ImageLabelTask, classifier_loss
from slams_ray.systems.collapse import map_warnings
from slams_ray.systems.crops import DeepCrops
from slams_ray.systems.maps import collapse_metrics, crops_of, mean_over_image, resized
from slams_ray.systems.system import NetworkTraining, System
from slams_ray.training.samples import Sampler
from slams_ray.training.task import Batch, TrainingModule

NAME = "mctformer"
STAGE = f"train_{NAME}"
BACKBONE = BackboneConfig()
"""Only says that nothing is frozen: the network has no CNN."""


class MctformerModule(TrainingModule):
    """Trains class tokens and patches as two classifiers."""

    network: TokenNetwork

    def forward(
        self, batch: Batch, draw: np.random.Generator, observe: bool
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        images, pixels = crops_of(batch)
        labels = batch["labels"].float()
        scores, logits = self.network.logits(images, batch["kept"] if self.training else None)
        logits = logits.float()
        valid = resized(pixels, logits.shape[-2:])
        tokens = classifier_loss(scores.float(), labels).mean()
        patches = classifier_loss(mean_over_image(logits, valid), labels).mean()
        metrics = {"loss_tokens": tokens.detach(), "loss_patches": patches.detach()}
        maps = max_normalised(logits.detach(), valid)
        return tokens + patches, metrics | collapse_metrics(maps, labels, valid)


class MctformerTask(ImageLabelTask):
    """Builds the network on the weights of the user.

    Raises:
        ConfigError: the weights are missing or of another architecture, or crops are not of whole
            patches.
    """

    def __init__(self, config: MctformerConfig, class_names: Sequence[str]) -> None:
        super().__init__(config.training, class_names)
        self.config = config
        self.read: Callable[[str], tuple[VitSizes, Mapping[str, torch.Tensor]]] = read_vit
        self.build_body: Callable[[VitSizes], Any] = build_vit
        sizes, _ = self._weights()
        if config.training.crop_px % sizes.patch_px:
            raise ConfigError(
                f"{NAME}.training.crop_px is {config.training.crop_px}, expected a multiple of the "
                f"side of a patch of {NAME}.weights ({sizes.patch_px})"
            )
        self.depth = sizes.depth
        self.architecture: dict[str, Any] = asdict(sizes) | {
            "num_classes": self.num_classes,
            "map_blocks": config.map_blocks,
        }

    def _weights(self) -> tuple[VitSizes, Mapping[str, torch.Tensor]]:
        assert self.config.weights is not None
        return self.read(self.config.weights)

    @property
    def sampler(self) -> Sampler:
        return DeepCrops(
            training=self.training,
            num_classes=self.num_classes,
            depth=self.depth,
            drop_path=self.config.drop_path,
        )

    def build(self) -> TrainingModule:
        network = TokenNetwork(**self.architecture, build=self.build_body)
        network.backbone.load(self._weights()[1], f"{NAME}.weights {self.config.weights}")
        return MctformerModule(network, BACKBONE)

    def score(self, network: nn.Module, images: torch.Tensor) -> torch.Tensor:
        """Returns the (B, C) mean of the scores of class tokens and of patches."""
        assert isinstance(network, TokenNetwork)
        tokens, logits = network.logits(whole_patches(images, network.backbone.sizes.patch_px))
        return (tokens + classification_scores(logits)) / 2


def trainings(config: PipelineConfig) -> list[NetworkTraining]:
    """Returns the training of the network, which does not build on the CAM classifier."""
    own = config.mctformer
    return [
        NetworkTraining(
            stage=STAGE,
            label=NAME,
            config=own,
            backbone=BACKBONE,
            make_task=lambda class_names, checkpoints: MctformerTask(own, class_names),
            warnings=lambda last, results: map_warnings(last, "MCTformer network", advice(NAME)),
        )
    ]


def check(config: PipelineConfig) -> None:
    """Raises ConfigError if timm or the weights are missing, or the weights do not fit."""
    require_extra("timm", "vit", NAME)
    assert config.mctformer.weights is not None
    read_vit(config.mctformer.weights)


SYSTEM = System(name=NAME, title="MCTformer", map_stage=STAGE, trainings=trainings, check=check)
