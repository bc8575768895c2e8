"""Network that is told which classes an image shows (AMN; docs/method.md, AMN)."""

import torch
from torch import nn

from slams_ray.networks.backbone import build_backbone
from slams_ray.networks.map_norms import EPSILON
from slams_ray.networks.segmentation_network import DeepLabV2Head


class ConditionedNetwork(nn.Module):
    """Segmentation network whose features are weighted by the image labels (AMN).

    Lee et al., CVPR 2022, section 3.3: features f V y, where V is linear without a bias and y the
    image labels, and a DeepLabV2 head to K logits.
    """

    needs_labels = True

    def __init__(
        self, backbone_name: str, output_stride: int, num_classes: int, dilate: bool = True
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.backbone = build_backbone(backbone_name, output_stride, dilate)
        self.condition = nn.Linear(num_classes, self.backbone.num_features, bias=False)
        self.head = DeepLabV2Head(self.backbone.num_features, num_classes + 1)

    def forward(
        self,
        images: torch.Tensor,
        labels: torch.Tensor | None = None,
        kept: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Returns (B, K, h, w) logits of (B, 3, H, W) normalised images; background is channel 0.

        Args:
            labels: (B, C) multi-hot; None means all classes.
            kept: (B, F) factor of each feature channel, for dropout; None means 1.
        """
        features = self.backbone(images)
        if labels is None:
            labels = features.new_ones((len(images), self.num_classes))
        weights = self.condition(labels.to(self.condition.weight.dtype))
        if kept is not None:
            weights = weights * kept
        # Each branch of the head would convert and keep its own copy of float32 features.
        return self.head((features * weights[..., None, None]).to(features.dtype))

    def maps_of_logits(
        self, logits: torch.Tensor, present: torch.Tensor, labelled: torch.Tensor | None
    ) -> torch.Tensor:
        """Returns the (P, h, w) maps of the present classes, in [0, 1].

        They are softmax probabilities. Where the training label is not background they are scaled
        to the range from 0 to 1 over the image, as in the published program.

        Args:
            logits: (K, h, w) mean over scales and mirror images.
            present: (P,) classes, counted from 0.
            labelled: (h, w) bool, where the training label is not background; None means nowhere.
        """
        maps = logits.softmax(dim=0)[present + 1]
        if labelled is None:
            return maps
        low, high = maps.amin(dim=(1, 2), keepdim=True), maps.amax(dim=(1, 2), keepdim=True)
        return torch.where(labelled, (maps - low) / (high - low + EPSILON), maps)
