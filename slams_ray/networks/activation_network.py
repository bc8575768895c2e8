"""One network for two maps: CAM when it learns to classify, SLAMs when the encoder teaches it."""

import torch
from torch import nn

from slams_ray.networks.backbone import build_backbone


class ActivationNetwork(nn.Module):
    """Backbone and a bias-free 1x1 convolution to C maps (method sections 3 and 4).

    Pooling is linear, so averaging the maps equals classifying the averaged features: the network
    is at once IRN's CAM classifier and the activation network that is initialised from it.
    """

    def __init__(self, backbone_name: str, output_stride: int, num_classes: int) -> None:
        super().__init__()
        self.backbone = build_backbone(backbone_name, output_stride)
        self.head = nn.Conv2d(self.backbone.num_features, num_classes, 1, bias=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(B, C, h, w) logits of (B, 3, H, W) normalised images."""
        return self.head(self.backbone(images))


def classification_scores(logits: torch.Tensor, valid: torch.Tensor | None = None) -> torch.Tensor:
    """Mean of (B, C, h, w) logits over the pixels that are image: (B, C).

    Args:
        valid: (B, 1, h, w) 1 on image, 0 on padding; None means all.
    """
    if valid is None:
        return logits.mean(dim=(2, 3))
    return (logits * valid).sum(dim=(2, 3)) / valid.sum(dim=(2, 3)).clamp(min=1e-6)
