"""Segmentation network: any backbone with a DeepLabV2 head or torchvision's DeepLabV3 head."""

import torch
from torch import nn

from slams_ray.errors import ConfigError
from slams_ray.networks.backbone import build_backbone
from slams_ray.networks.precision import at_least_float32

DEEPLABV2_RATES = (6, 12, 18, 24)


class DeepLabV2Head(nn.Module):
    """Sum of dilated 3x3 classifiers (ASPP-L, Chen et al. 2017, arXiv 1606.00915)."""

    def __init__(self, num_features: int, num_all_classes: int) -> None:
        super().__init__()
        branches = [
            nn.Conv2d(num_features, num_all_classes, 3, padding=rate, dilation=rate)
            for rate in DEEPLABV2_RATES
        ]
        for branch in branches:
            nn.init.normal_(branch.weight, std=0.01)
            assert branch.bias is not None
            nn.init.zeros_(branch.bias)
        self.branches = nn.ModuleList(branches)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        found = torch.stack([branch(features) for branch in self.branches])
        return at_least_float32(found).sum(dim=0)


def _deeplabv3_head(num_features: int, num_classes: int) -> nn.Module:
    # Imported here, because a process waits 1.5 s for it.
    from torchvision.models.segmentation.deeplabv3 import DeepLabHead

    return DeepLabHead(num_features, num_classes)


class SegmentationNetwork(nn.Module):
    """Segmentation network (docs/method.md, Segmentation network).

    It maps (B, 3, H, W) normalised images to (B, K, h, w) logits; background is channel 0.
    """

    def __init__(
        self,
        backbone_name: str,
        output_stride: int,
        num_classes: int,
        head: str,
        dilate: bool = True,
    ) -> None:
        super().__init__()
        self.backbone = build_backbone(backbone_name, output_stride, dilate)
        heads = {"deeplabv2": DeepLabV2Head, "deeplabv3": _deeplabv3_head}
        if head not in heads:
            raise ConfigError(f"segmentation.head is {head!r}, expected one of {', '.join(heads)}")
        self.head = heads[head](self.backbone.num_features, num_classes + 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.backbone(images))
