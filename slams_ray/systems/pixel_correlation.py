"""What SEAM and CPN share: views of a crop, and losses of maps and refined maps."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic

import torch
from torch import nn

from slams_ray.config import BackboneConfig
from slams_ray.networks.activation_network import classification_scores
from slams_ray.networks.correlation_network import CorrelationNetwork, largest_only
from slams_ray.networks.map_norms import max_normalised, min_max_normalised
from slams_ray.systems.after_cam import AfterCamTask, Config, copy_weights
from slams_ray.systems.maps import collapse_metrics, mean_over_image, resized
from slams_ray.training.task import TrainingModule

LARGEST_SHARE, SMALLEST_SHARE = 0.2, 0.25


@dataclass(frozen=True)
class View:
    """Outputs of the network for one view of the crops. Absent classes are 0.

    Attributes:
        scores: (B, C) mean logits of all classes.
        maps: (B, C, h, w) min-max norm of the maps.
        refined: (B, K, h, w) refined maps, background first.
        valid: (B, 1, h, w) 1 on image, 0 on padding.
    """

    scores: torch.Tensor
    maps: torch.Tensor
    refined: torch.Tensor
    valid: torch.Tensor


def view_of(
    network: CorrelationNetwork, images: torch.Tensor, pixels: torch.Tensor, labels: torch.Tensor
) -> View:
    """Runs the network on one view.

    Args:
        images: (B, 3, H, W) normalised.
        pixels: (B, 1, H', W') 1 on image, 0 on padding, of any size.
        labels: (B, C) multi-hot.
    """
    logits, guide = network.logits_and_guide(images)
    valid = resized(pixels, logits.shape[-2:])
    refined = network.refined(logits, guide, labels, valid)
    return View(
        scores=mean_over_image(logits.float(), valid),
        maps=min_max_normalised(logits, valid) * labels[..., None, None],
        refined=refined * with_background(labels)[..., None, None],
        valid=valid,
    )


def with_background(labels: torch.Tensor) -> torch.Tensor:
    """(B, K) labels with background, which is in every image."""
    return torch.cat([torch.ones_like(labels[:, :1]), labels], dim=1)


def winners(maps: torch.Tensor) -> torch.Tensor:
    """(B, K, h, w) the highest of the maps and of background, 1 - max; others are 0. No gradient.

    Args:
        maps: (B, C, h, w) in [0, 1].
    """
    return largest_only(background_first(maps.detach()))


def background_first(maps: torch.Tensor) -> torch.Tensor:
    """(B, K, h, w) maps with background, 1 - max over the (B, C, h, w) maps."""
    return torch.cat([1 - maps.amax(dim=1, keepdim=True), maps], dim=1)


def largest_mean(
    difference: torch.Tensor, labels: torch.Tensor, valid: torch.Tensor
) -> torch.Tensor:
    """(B,) mean of the largest 20 % of the values of present classes and background on the image.

    Args:
        difference: (B, K, h, w), not negative.
        labels: (B, C) multi-hot.
        valid: (B, 1, h, w) 1 on image, 0 on padding.
    """
    counted = (with_background(labels)[..., None, None] * valid > 0).flatten(1)
    ordered = difference.flatten(1).masked_fill(~counted, -1).sort(dim=1, descending=True).values
    return _mean_of_first(ordered, counted.sum(dim=1) * LARGEST_SHARE)


def min_pooling_loss(refined: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """(B,) mean of the smallest quarter of the highest refined map of each pixel of the image.

    Args:
        refined: (B, K, h, w) refined maps, background first.
        valid: (B, 1, h, w) 1 on image, 0 on padding.
    """
    highest = refined[:, 1:].amax(dim=1).flatten(1)
    inside = (valid > 0).flatten(1)
    ordered = highest.masked_fill(~inside, torch.inf).sort(dim=1).values
    return _mean_of_first(ordered, inside.sum(dim=1) * SMALLEST_SHARE)


def _mean_of_first(ordered: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """(B,) mean of the first values of each row, at least one."""
    counts = counts.long().clamp(min=1)[:, None]
    kept = torch.arange(ordered.shape[1], device=ordered.device)[None] < counts
    return torch.where(kept, ordered, 0.0).sum(dim=1) / counts[:, 0]


class CorrelationModule(TrainingModule, Generic[Config]):
    """Base of the modules that train a `CorrelationNetwork`.

    Args:
        config: has the weight of each loss under the name of the loss.
    """

    network: CorrelationNetwork

    def __init__(
        self, network: CorrelationNetwork, backbone: BackboneConfig, config: Config
    ) -> None:
        super().__init__(network, backbone)
        self.config = config
        if getattr(config, "initialise_from_cam", False):
            self.slow_parameters = ("backbone.", "head.")

    def weighted(
        self, terms: Mapping[str, torch.Tensor], view: View, labels: torch.Tensor
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Returns the weighted sum of the losses, and metrics.

        Args:
            terms: name -> (B,) loss.
            view: outputs for the whole crop, whose maps are those of inference.
            labels: (B, C) multi-hot.
        """
        means = {name: term.mean() for name, term in terms.items()}
        loss = torch.stack([getattr(self.config, name) * means[name] for name in means]).sum()
        maps = max_normalised(view.refined[:, 1:].detach(), view.valid)
        metrics = {f"loss_{name}": value.detach() for name, value in means.items()}
        return loss, metrics | collapse_metrics(maps, labels, view.valid)


class CorrelationTask(AfterCamTask[Config]):
    """Base of the tasks that train a `CorrelationNetwork`."""

    with_regions = False

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.architecture = self.classifier_architecture | {"with_regions": self.with_regions}

    def correlation_network(self, from_classifier: bool) -> CorrelationNetwork:
        """Returns a network on the CAM classifier, or on the weights of the backbone."""
        network = CorrelationNetwork(**self.architecture)
        start = self.start(from_classifier)
        copy_weights(start.backbone, network.backbone)
        copy_weights(start.head, network.head)
        return network

    def score(self, network: nn.Module, images: torch.Tensor) -> torch.Tensor:
        assert isinstance(network, CorrelationNetwork)
        return classification_scores(network.logits_and_guide(images)[0])
