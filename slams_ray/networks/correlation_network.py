"""Network that refines its maps by the correlation of pixels (SEAM, CPN; docs/method.md)."""

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from slams_ray.networks.activation_network import ActivationNetwork
from slams_ray.networks.map_norms import EPSILON, max_normalised

NUM_SHALLOW, NUM_DEEP, NUM_GUIDE = 64, 128, 192


class CorrelationNetwork(ActivationNetwork):
    """Activation network with a pixel correlation module (Wang et al., CVPR 2020, section 3.3).

    Args:
        with_regions: adds the region term of CPN (Zhang et al., ICCV 2021).
        architecture: arguments of `ActivationNetwork`.
    """

    needs_labels = True

    def __init__(self, *, with_regions: bool = False, **architecture: Any) -> None:
        super().__init__(**architecture)
        self.num_classes = self.head.out_channels
        self.shallow = nn.Conv2d(self.backbone.taps[-2].num_features, NUM_SHALLOW, 1, bias=False)
        self.deep = nn.Conv2d(self.backbone.num_features, NUM_DEEP, 1, bias=False)
        self.guide = nn.Conv2d(3 + NUM_SHALLOW + NUM_DEEP, NUM_GUIDE, 1, bias=False)
        self.region = nn.Linear(NUM_GUIDE, NUM_GUIDE) if with_regions else None

    def forward(self, images: torch.Tensor, labels: torch.Tensor | None = None) -> torch.Tensor:
        """Returns (B, C, h, w) refined maps, non-negative, of (B, 3, H, W) normalised images.

        Args:
            labels: (B, C) multi-hot; only these classes compete for a pixel. None means all.
        """
        logits, guide = self.logits_and_guide(images)
        if labels is None:
            labels = torch.ones_like(logits[:, :, 0, 0])
        valid = torch.ones_like(logits[:, :1])
        return self.refined(logits, guide, labels, valid)[:, 1:]

    def logits_and_guide(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns (B, C, h, w) logits, and (B, 192, h, w) what pixels are compared by.

        The guide is made of the image and of features of two depths, which it gives no gradient.
        """
        shallow, features = self.backbone.with_shallow(images)
        logits = self.head(features)
        size = logits.shape[-2:]
        small = F.interpolate(images, size=size, mode="area")
        shallow = F.interpolate(shallow.detach(), size=size, mode="area")
        parts = [small, self.shallow(shallow).relu(), self.deep(features.detach()).relu()]
        return logits, self.guide(torch.cat(parts, dim=1))

    def refined(
        self, logits: torch.Tensor, guide: torch.Tensor, labels: torch.Tensor, valid: torch.Tensor
    ) -> torch.Tensor:
        """Returns (B, K, h, w) refined maps with background first. Gradients reach the guide only.

        Args:
            logits, guide: see `logits_and_guide`.
            labels: (B, C) multi-hot.
            valid: (B, 1, h, w) 1 on image, 0 on padding, which gives nothing to other pixels.
        """
        maps = max_normalised(logits.detach(), valid) * labels[..., None, None]
        sources = torch.cat([1 - maps.amax(dim=1, keepdim=True), largest_only(maps)], dim=1)
        refined = correlated(sources, guide, valid)
        if self.region is None:
            return refined
        return refined + self._region_term(sources, guide, valid)

    def _region_term(
        self, sources: torch.Tensor, guide: torch.Tensor, valid: torch.Tensor
    ) -> torch.Tensor:
        """Returns R * N(M), (B, K, h, w): R compares each pixel with the region of each class."""
        assert self.region is not None
        padding = valid.flatten(2) == 0
        flat, pixels = sources.flatten(2), guide.flatten(2)
        share = flat.masked_fill(padding, -torch.inf).softmax(dim=2)
        regions = self.region(share.to(pixels.dtype) @ pixels.transpose(1, 2)).relu()
        likeness = (regions @ pixels.relu()).float() / sources.shape[1] ** 0.5
        weight = likeness.masked_fill(padding, -torch.inf).softmax(dim=2)
        return (weight * flat).view_as(sources)


def correlated(sources: torch.Tensor, guide: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """(B, K, h, w) means of the sources, weighted by the positive correlation of pixels.

    P = ReLU(g^T g) with columns that sum to 1 over the image, where g are guides of length 1.
    The result is sources P, in the range of the sources.

    Args:
        sources: (B, K, h, w).
        guide: (B, D, h, w).
        valid: (B, 1, h, w) weight of each source pixel.
    """
    # In bfloat16 the sum over all pixels would lose too much.
    with torch.autocast(guide.device.type, enabled=False):
        unit = F.normalize(guide.float().flatten(2), dim=1, eps=EPSILON)
        correlation = (unit.transpose(1, 2) @ unit).relu() * valid.flatten(2).transpose(1, 2)
        columns = correlation / (correlation.sum(dim=1, keepdim=True) + EPSILON)
        return (sources.float().flatten(2) @ columns).view_as(sources)


def largest_only(maps: torch.Tensor) -> torch.Tensor:
    """(B, C, h, w) maps that are 0 where another class is higher."""
    return maps * (maps == maps.amax(dim=1, keepdim=True))
