"""Network that gives CAM when trained as a classifier, and SLAMs when trained by the encoder."""

import torch
from torch import nn

from slams_ray.networks.backbone import build_backbone
from slams_ray.networks.precision import at_least_float32


class ActivationNetwork(nn.Module):
    """Backbone and a bias-free 1x1 convolution to C maps (docs/method.md, Activation network).

    The head is linear, so averaging its maps equals classifying the averaged features. The same
    network is therefore IRN's CAM classifier (docs/method.md, CAM baseline).
    """

    def __init__(
        self, backbone_name: str, output_stride: int, num_classes: int, dilate: bool = True
    ) -> None:
        super().__init__()
        self.backbone = build_backbone(backbone_name, output_stride, dilate)
        self.head = nn.Conv2d(self.backbone.num_features, num_classes, 1, bias=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Returns (B, C, h, w) logits of (B, 3, H, W) normalised images."""
        return self.head(self.backbone(images))


def classification_scores(logits: torch.Tensor, valid: torch.Tensor | None = None) -> torch.Tensor:
    """Returns the (B, C) mean of (B, C, h, w) logits over the pixels that are not padding.

    Args:
        valid: (B, 1, h, w), 1 on image and 0 on padding; None means no padding.
    """
    if valid is None:
        return at_least_float32(logits).mean(dim=(2, 3))
    return (logits * valid).sum(dim=(2, 3)) / valid.sum(dim=(2, 3)).clamp(min=1e-6)
