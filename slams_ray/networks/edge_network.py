"""The edge network: where one object ends and another begins, from frozen features."""

import torch
from torch import nn
from torch.nn import functional as F

from slams_ray.data.stored_maps import stored_size
from slams_ray.networks.backbone import Tap, build_backbone

NUM_FEATURES = 32
NUM_GROUPS = 4


class EdgeBranch(nn.Sequential):
    """The features of one depth, reduced to 32 channels."""

    def __init__(self, tap: Tap) -> None:
        super().__init__(
            nn.Conv2d(tap.num_features, NUM_FEATURES, 1, bias=False),
            nn.GroupNorm(NUM_GROUPS, NUM_FEATURES),
        )


class EdgeNetwork(nn.Module):
    """(B, 3, H, W) normalised images to (B, h, w) edge logits at stride 4, rounded up.

    The edge branch of IRN (Ahn et al. 2019, section 4): features of several depths, each through a
    1x1 convolution and GroupNorm, on one grid, and one 1x1 convolution over all. The backbone is
    frozen: always in eval mode, and no gradient is computed for it. The grid is that of the stored
    activations.
    """

    def __init__(self, backbone_name: str, output_stride: int, dilate: bool = True) -> None:
        super().__init__()
        self.backbone = build_backbone(backbone_name, output_stride, dilate).requires_grad_(False)
        self.branches = nn.ModuleList(EdgeBranch(tap) for tap in self.backbone.taps)
        self.head = nn.Conv2d(NUM_FEATURES * len(self.branches), 1, 1)
        self.backbone.eval()

    def train(self, mode: bool = True) -> "EdgeNetwork":
        super().train(mode)
        self.backbone.eval()
        return self

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            depths = self.backbone.depths(images)
        size = stored_size(images.shape[-2], images.shape[-1])
        resized = [
            F.interpolate(branch(features), size=size, mode="bilinear", align_corners=False).relu()
            for branch, features in zip(self.branches, depths, strict=True)
        ]
        return self.head(torch.cat(resized, dim=1))[:, 0]


def edge_probability(network: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """(B, h, w) float32 in [0, 1]: sigmoid of the mean logit of an image and its mirror image.

    Images keep their own size: GroupNorm would see padding.

    Args:
        network: an `EdgeNetwork`.
        images: (B, 3, H, W) normalised.
    """
    mirrored = network(images.flip(-1)).flip(-1)
    return ((network(images) + mirrored) / 2).float().sigmoid()
