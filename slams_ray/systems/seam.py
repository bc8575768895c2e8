"""SEAM: maps of two scales agree, and a pixel correlation module refines them.

Wang et al., CVPR 2020. Views are a crop x and a smaller copy x2; down resizes to the grid of x2.
mm is the min-max norm of ReLU(M), for present classes; top K keeps the highest of mm and of
background, 1 - max mm, in each pixel, and gives no gradient. With the refined maps
rv = [1 - max N(M), N(M) where it is the highest] P of `CorrelationNetwork`:

- classification: L_cls, mean over both views;
- min_pooling: mean of the smallest quarter of max_c rv, mean over both views;
- equivariance: mean |down(mm M(x)) - mm M(x2)| over present classes, gradients both ways;
- correlation: mean of the largest 20 % of |top K(x2) - down rv(x)|, plus the same with the views
  exchanged.

The maps of SEAM are rv. Only present classes compete for a pixel, in training and in inference. In
the paper all classes do, although absent ones have a maximum of 1 as well (our reading).
"""

import numpy as np
import torch
from torch.nn import functional as F

from slams_ray.config import SeamConfig
from slams_ray.systems.after_cam import system_after_cam
from slams_ray.systems.classification import classifier_loss
from slams_ray.systems.maps import (
    crops_of,
    mean_over_classes,
    mean_over_image,
    resized,
)
from slams_ray.systems.pixel_correlation import (
    CorrelationModule,
    CorrelationTask,
    View,
    largest_mean,
    min_pooling_loss,
    view_of,
    winners,
)
from slams_ray.training.task import Batch, TrainingModule


class SeamModule(CorrelationModule[SeamConfig]):
    """Trains maps and pixel correlation on two views of each crop."""

    def forward(
        self, batch: Batch, draw: np.random.Generator, observe: bool
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        images, pixels = crops_of(batch)
        labels = batch["labels"].float()
        small = F.interpolate(
            images,
            scale_factor=self.config.scale,
            mode="bilinear",
            align_corners=False,
            antialias=True,
        )
        view = view_of(self.network, images, pixels, labels)
        terms = seam_losses(view, view_of(self.network, small, pixels, labels), labels)
        return self.weighted(terms, view, labels)


def seam_losses(view: View, small: View, labels: torch.Tensor) -> dict[str, torch.Tensor]:
    """Returns weight in `SeamConfig` -> (B,) loss.

    Args:
        view, small: outputs for the crop and for its smaller copy.
        labels: (B, C) multi-hot.
    """
    size, valid = small.valid.shape[-2:], small.valid
    maps, refined = resized(view.maps, size), resized(view.refined, size)
    difference = mean_over_image((maps - small.maps).abs(), valid)
    cross = [winners(small.maps) - refined, winners(maps) - small.refined]
    largest = [largest_mean(c.abs(), labels, valid) for c in cross]
    pooled = [min_pooling_loss(v.refined, v.valid) for v in (view, small)]
    classified = [classifier_loss(v.scores, labels) for v in (view, small)]
    return {
        "classification": (classified[0] + classified[1]) / 2,
        "min_pooling": (pooled[0] + pooled[1]) / 2,
        "equivariance": mean_over_classes(difference, labels),
        "correlation": largest[0] + largest[1],
    }


class SeamTask(CorrelationTask[SeamConfig]):
    """Builds the network with pixel correlation."""

    def build(self) -> TrainingModule:
        network = self.correlation_network(self.config.initialise_from_cam)
        return SeamModule(network, self.backbone, self.config)


SYSTEM = system_after_cam("seam", "SEAM", SeamTask, lambda config: config.initialise_from_cam)
