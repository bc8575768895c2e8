"""A tiny ResNet for the built-in data set, of blocks of two convolutions (arXiv 1512.03385).

Its blocks have the state-dict keys of torchvision's. They are ours so that the demo need not import
torchvision, for which each of its processes would wait 1.5 s.
"""

import torch
from torch import nn

from slams_ray.errors import ConfigError


class TinyResNet(nn.Sequential):
    """A stem and three residual stages of 16, 32 and 64 channels, about 0.3 million parameters.

    It uses BatchNorm: GroupNorm removes the mean over the image, which a classifier pools, and
    learnt more slowly (docs/ablations.md).
    """

    def __init__(self, output_stride: int) -> None:
        if output_stride not in (4, 8):
            raise ConfigError(f"tiny_resnet has output stride 4 or 8, got {output_stride}")
        stem = nn.Sequential(
            nn.Conv2d(3, 16, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(inplace=True),
        )
        layers: list[nn.Module] = [stem]
        num_channels = 16
        for width, stride in ((16, 1), (32, 2), (64, 2)):
            step = 1 if width == 64 and output_stride == 4 else stride
            layers.append(_residual_stage(num_channels, width, step))
            num_channels = width
        super().__init__(*layers)


def _residual_stage(num_channels: int, width: int, stride: int) -> nn.Sequential:
    shortcut = None
    if stride != 1 or num_channels != width:
        shortcut = nn.Sequential(
            nn.Conv2d(num_channels, width, 1, stride=stride, bias=False), nn.BatchNorm2d(width)
        )
    return nn.Sequential(
        ResidualBlock(num_channels, width, stride, shortcut), ResidualBlock(width, width)
    )


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions whose output is added to the input, or to its shortcut."""

    def __init__(
        self, num_channels: int, width: int, stride: int = 1, shortcut: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(num_channels, width, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = shortcut

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        inner = self.relu(self.bn1(self.conv1(features)))
        shortcut = features if self.downsample is None else self.downsample(features)
        return self.relu(self.bn2(self.conv2(inner)).add_(shortcut))
