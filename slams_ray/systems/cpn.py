"""CPN: the maps of two complementary patches of an image add up to its own map.

Zhang et al., ICCV 2021. z is 0 in random regions and 1 elsewhere: x1 = x z, x2 = x (1 - z), and c
is the visible share. With the maps and refined maps of present classes (`CorrelationNetwork` with
the region term), a = mm M(x), a1 = c mm M(x1), a2 = (1 - c) mm M(x2), and likewise rv, rv1, rv2:

- classification, min_pooling: as in SEAM, mean over x, x1 and x2;
- additivity: mean |a1 + a2 - a| over present classes, with gradients to a only;
- refined_additivity: mean |rv - rv1 - rv2| over present classes;
- correlation: mean of the largest 20 % of |top(a - a1) - rv2|, plus that of |top(a - a2) - rv1|,
  where top keeps the highest class or background and gives no gradient.

Background is 1 - max everywhere. The maps of CPN are rv. Regions are cells of a grid by default;
the paper reports that grids work as well as superpixels.
"""

import importlib
import importlib.util
from typing import Any

import numpy as np
import torch

from slams_ray.config import CpnConfig
from slams_ray.errors import ConfigError
from slams_ray.systems.after_cam import system_after_cam
from slams_ray.systems.classification import classifier_loss
from slams_ray.systems.crops import PatchedCrops
from slams_ray.systems.maps import crops_of, mean_over_classes, mean_over_image
from slams_ray.systems.pixel_correlation import (
    CorrelationModule,
    CorrelationTask,
    View,
    background_first,
    largest_mean,
    min_pooling_loss,
    view_of,
    winners,
)
from slams_ray.training.samples import Sampler
from slams_ray.training.task import Batch, TrainingModule


class CpnModule(CorrelationModule[CpnConfig]):
    """Trains maps and pixel correlation on crops and both of their patches."""

    def forward(
        self, batch: Batch, draw: np.random.Generator, observe: bool
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        images, pixels = crops_of(batch)
        labels = batch["labels"].float()
        visible = batch["visible"][:, None].float()
        share = mean_over_image(visible, pixels)[..., None, None]
        patches = (images, images * visible, images * (1 - visible))
        views = [view_of(self.network, patch, pixels, labels) for patch in patches]
        return self.weighted(cpn_losses(views, share, labels), views[0], labels)


def cpn_losses(
    views: list[View], share: torch.Tensor, labels: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Returns weight in `CpnConfig` -> (B,) loss.

    Args:
        views: outputs for the crop, the visible patch and the hidden patch.
        share: (B, 1, 1, 1) visible share of the image.
        labels: (B, C) multi-hot.
    """
    whole, first, second = views
    valid = whole.valid
    parts = share * first.maps, (1 - share) * second.maps
    refined = share * first.refined[:, 1:], (1 - share) * second.refined[:, 1:]
    left = [(whole.maps - part).relu() for part in parts]
    cross = [winners(left[0]) - background_first(refined[1])]
    cross.append(winners(left[1]) - background_first(refined[0]))

    def gap(difference: torch.Tensor) -> torch.Tensor:
        return mean_over_classes(mean_over_image(difference.abs(), valid), labels)

    return {
        "classification": torch.stack([classifier_loss(v.scores, labels) for v in views]).mean(0),
        "min_pooling": torch.stack([min_pooling_loss(v.refined, valid) for v in views]).mean(0),
        "additivity": gap((parts[0] + parts[1]).detach() - whole.maps),
        "refined_additivity": gap(whole.refined[:, 1:] - refined[0] - refined[1]),
        "correlation": torch.stack([largest_mean(c.abs(), labels, valid) for c in cross]).sum(0),
    }


class CpnTask(CorrelationTask[CpnConfig]):
    """Builds the network with pixel correlation and the region term.

    Raises:
        ConfigError: superpixels are asked for without scikit-image.
    """

    with_regions = True

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        if self.config.regions == "slic" and importlib.util.find_spec("skimage") is None:
            raise ConfigError(
                "cpn.regions is 'slic', which needs scikit-image on every node: install it with "
                "`pip install scikit-image`, or use --cpn.regions grid"
            )

    @property
    def sampler(self) -> Sampler:
        return PatchedCrops(
            self.training,
            self.num_classes,
            regions=self.config.regions,
            num_regions=self.config.num_regions,
        )

    def build(self) -> TrainingModule:
        network = self.correlation_network(self.config.initialise_from_cam)
        return CpnModule(network, self.backbone, self.config)


SYSTEM = system_after_cam("cpn", "CPN", CpnTask, lambda config: config.initialise_from_cam)
