"""Puzzle-CAM: the maps of 2 x 2 tiles agree with the maps of the whole image.

Jo and Yu, ICIP 2021. With M the logits of a crop, M' the logits of its four tiles put together
again, and s the mean over pixels:

L = L_cls(s(M), y) + L_cls(s(M'), y) + alpha mean |M - M'|

The last mean is over pixels and present classes; gradients pass through both sides. alpha grows
linearly from 0 to `puzzle.reconstruction` in the first half of the training. Tiles must be a
multiple of the stride, so that both maps have one grid.
"""

import numpy as np
import torch

from slams_ray.config import BackboneConfig, PuzzleConfig
from slams_ray.networks.activation_network import ActivationNetwork
from slams_ray.networks.map_norms import max_normalised
from slams_ray.systems.after_cam import AfterCamTask, system_after_cam
from slams_ray.systems.classification import classifier_loss
from slams_ray.systems.maps import (
    collapse_metrics,
    crops_of,
    mean_over_classes,
    mean_over_image,
    resized,
)
from slams_ray.training.task import Batch, TrainingModule


class PuzzleModule(TrainingModule):
    """Trains a classifier on whole crops and on their tiles."""

    network: ActivationNetwork

    def __init__(
        self, network: ActivationNetwork, backbone: BackboneConfig, config: PuzzleConfig
    ) -> None:
        super().__init__(network, backbone)
        self.config = config

    def forward(
        self, batch: Batch, draw: np.random.Generator, observe: bool
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        images, valid = crops_of(batch)
        labels = batch["labels"].float()
        whole = self.network(images).float()
        tiled = join_tiles(self.network(cut_tiles(images)).float())
        # A tile ends where cells end, so padding covers the same cells of both.
        valid = resized(valid, whole.shape[-2:])
        terms = {
            "classification": classifier_loss(mean_over_image(whole, valid), labels),
            "tiles": classifier_loss(mean_over_image(tiled, valid), labels),
            "reconstruction": mean_over_classes(
                mean_over_image((whole - tiled).abs(), valid), labels
            ),
        }
        means = {name: term.mean() for name, term in terms.items()}
        weight = self.config.reconstruction * min(1.0, 2 * self.progress)
        loss = means["classification"] + means["tiles"] + weight * means["reconstruction"]
        metrics = {f"loss_{name}": value.detach() for name, value in means.items()}
        maps = max_normalised(whole.detach(), valid)
        return loss, metrics | collapse_metrics(maps, labels, valid)


def cut_tiles(images: torch.Tensor) -> torch.Tensor:
    """(4 B, 3, H / 2, W / 2) the tiles of (B, 3, H, W) images, from top left to bottom right."""
    rows = images.chunk(2, dim=2)
    return torch.cat([tile for row in rows for tile in row.chunk(2, dim=3)])


def join_tiles(tiles: torch.Tensor) -> torch.Tensor:
    """(B, C, h, w) maps of the whole from (4 B, C, h / 2, w / 2) maps of tiles."""
    top_left, top_right, bottom_left, bottom_right = tiles.chunk(4)
    top = torch.cat([top_left, top_right], dim=3)
    return torch.cat([top, torch.cat([bottom_left, bottom_right], dim=3)], dim=2)


class PuzzleTask(AfterCamTask[PuzzleConfig]):
    """Builds a classifier that is trained on tiles as well."""

    def build(self) -> TrainingModule:
        network = self.start(self.config.initialise_from_cam)
        return PuzzleModule(network, self.backbone, self.config)


SYSTEM = system_after_cam(
    "puzzle", "Puzzle-CAM", PuzzleTask, lambda config: config.initialise_from_cam
)
