"""Feature extractors of torchvision, and a tiny ResNet for the built-in data set."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import TYPE_CHECKING

import torch
from torch import nn

from slams_ray.errors import ConfigError
from slams_ray.networks.tiny_resnet import TinyResNet

if TYPE_CHECKING:
    from torchvision.models import ResNet

OUTPUT_STRIDES = (8, 16, 32)


@dataclass(frozen=True)
class Tap:
    """One depth of a backbone at which `Backbone.depths` gives features.

    Attributes:
        block: index of the block whose output it is (see `Backbone.blocks`).
        num_features: channels.
        stride: input pixels per feature cell.
    """

    block: int
    num_features: int
    stride: int


class Backbone(nn.Module):
    """Maps (B, 3, H, W) normalised images to (B, num_features, H / stride, W / stride) features.

    Attributes:
        num_features: number of output channels.
        taps: what `depths` returns, from the input on.
        passes: computes `forward` in place of the body, while it is set.
    """

    passes: Callable[[torch.Tensor], torch.Tensor] | None = None

    def __init__(self, body: nn.Module, num_features: int, taps: Sequence[Tap]) -> None:
        super().__init__()
        self.body = body
        self.num_features = num_features
        self.taps = tuple(taps)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = (self.passes or self.body)(images)
        return features

    @property
    def blocks(self) -> list[nn.Module]:
        """The modules that run one after another: torchvision's sequence, or ResNet's children."""
        body = self.body.features if isinstance(self.body, MobileNetBody) else self.body
        return list(body.children())

    def depths(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Features at several depths, one (B, tap.num_features, h, w) for each of `taps`.

        h and w are the sides of the images divided by the tap's stride, rounded up.
        """
        blocks, first = self.blocks, 0
        found = [images]
        for tap in self.taps:
            features = found[-1]
            for block in blocks[first : tap.block + 1]:
                features = block(features)
            found.append(features)
            first = tap.block + 1
        return found[1:]

    def with_shallow(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns the features of the last tap but one, and those of `forward`."""
        last = self.taps[-2].block + 1
        shallow = images
        for block in self.blocks[:last]:
            shallow = block(shallow)
        features = shallow
        for block in self.blocks[last:]:
            features = block(features)
        return shallow, features


def _tiny(output_stride: int) -> Backbone:
    taps = (Tap(0, 16, 2), Tap(1, 16, 2), Tap(2, 32, 4), Tap(3, 64, output_stride))
    return Backbone(TinyResNet(output_stride), 64, taps)


def _torchvision_models() -> ModuleType:
    """Imports torchvision only where it is needed, because a process waits 1.5 s for it."""
    from torchvision import models

    return models


def _resnet(name: str, output_stride: int) -> Backbone:
    builder = getattr(_torchvision_models(), name)
    bottleneck = name in ("resnet50", "resnet101")
    # torchvision's BasicBlock refuses dilation, so ResNet-18/34 are dilated after construction.
    dilate = [output_stride <= 8, output_stride <= 16]
    if bottleneck:
        network = builder(weights=None, replace_stride_with_dilation=[False, *dilate])
    else:
        network = builder(weights=None)
        dilation = 1
        for stage, dilated in zip((network.layer3, network.layer4), dilate, strict=True):
            if dilated:
                remove_stride(stage, dilation)
                dilation *= 2
    num_features = network.fc.in_features
    network.avgpool = nn.Identity()
    network.fc = nn.Identity()
    taps = [Tap(3, 64, 4)]
    for stage, stride in enumerate((4, 8, 16, 32)):
        width = num_features // 2 ** (3 - stage)
        taps.append(Tap(4 + stage, width, min(stride, output_stride)))
    return Backbone(ResNetBody(network), num_features, taps)


class ResNetBody(nn.Module):
    """torchvision's ResNet without pooling and classifier, with torchvision's state-dict keys."""

    def __init__(self, network: "ResNet") -> None:
        super().__init__()
        for name in ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4"):
            self.add_module(name, getattr(network, name))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = images
        for module in self.children():
            features = module(features)
        return features


class MobileNetBody(nn.Module):
    """torchvision's MobileNetV2 without classifier, with torchvision's state-dict keys."""

    def __init__(self, features: nn.Module) -> None:
        super().__init__()
        self.features = features

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.features(images)


def _mobilenet_v2(output_stride: int) -> Backbone:
    network = _torchvision_models().mobilenet_v2(weights=None)
    body = MobileNetBody(network.features)
    stride_at = {7: 16, 14: 32}
    dilation = 1
    for index, block in enumerate(network.features):
        if stride_at.get(index, 0) > output_stride:
            dilation *= 2
            remove_stride(block, dilation // 2)
        elif dilation > 1:
            dilate_convolutions(block, dilation)
    # The last block of each stride from 4 on; the convolution to 1280 channels is none of them.
    last_blocks = ((3, 24, 4), (6, 32, 8), (13, 96, 16), (17, 320, 32))
    taps = [Tap(i, width, min(stride, output_stride)) for i, width, stride in last_blocks]
    return Backbone(body, network.last_channel, taps)


def remove_stride(module: nn.Module, dilation: int = 1) -> None:
    """Sets every stride of the module's convolutions to 1.

    Strided 3x3 convolutions get `dilation`, those after them twice as much, so that every filter
    tap keeps its place in the image.
    """
    strided_seen = False
    for convolution in (m for m in module.modules() if isinstance(m, nn.Conv2d)):
        strided = convolution.stride != (1, 1)
        convolution.stride = (1, 1)
        if convolution.kernel_size == (3, 3):
            rate = dilation if strided or not strided_seen else 2 * dilation
            _set_dilation(convolution, rate)
        strided_seen |= strided


def dilate_convolutions(module: nn.Module, dilation: int) -> None:
    """Sets the dilation of every 3x3 convolution of the module."""
    for convolution in (m for m in module.modules() if isinstance(m, nn.Conv2d)):
        if convolution.kernel_size == (3, 3):
            _set_dilation(convolution, dilation)


def _set_dilation(convolution: nn.Conv2d, dilation: int) -> None:
    convolution.dilation = (dilation, dilation)
    convolution.padding = (dilation, dilation)


BACKBONES: dict[str, Callable[[int], Backbone]] = {
    "tiny_resnet": _tiny,
    "mobilenet_v2": _mobilenet_v2,
    **{n: partial(_resnet, n) for n in ("resnet18", "resnet34", "resnet50", "resnet101")},
}


def build_backbone(name: str, output_stride: int, dilate: bool = True) -> Backbone:
    """Builds a backbone with random weights. `dilate` changes neither weights nor their names.

    Args:
        name: a key of `BACKBONES`.
        output_stride: input pixels per feature cell: 8, 16 or 32 (tiny_resnet: 4 or 8).
        dilate: whether stages without a stride are dilated, so that their filters keep their field
            of view; IRN only removes the stride.

    Raises:
        ConfigError: the name or the output stride is unknown.
    """
    if name not in BACKBONES:
        raise ConfigError(f"backbone is {name!r}, expected one of {', '.join(BACKBONES)}")
    if name != "tiny_resnet" and output_stride not in OUTPUT_STRIDES:
        raise ConfigError(f"output_stride of {name} is {output_stride}, expected 8, 16 or 32")
    backbone = BACKBONES[name](output_stride)
    if not dilate:
        dilate_convolutions(backbone, 1)
    return backbone


def freeze_blocks(backbone: Backbone, num_blocks: int) -> None:
    """Excludes the weights of the leading blocks from training, in place.

    Args:
        num_blocks: number of leading `Backbone.blocks`.

    Raises:
        ConfigError: the backbone has fewer blocks.
    """
    blocks = backbone.blocks
    if num_blocks > len(blocks):
        raise ConfigError(
            f"backbone.frozen_blocks is {num_blocks}, but the backbone has {len(blocks)} blocks: "
            "set the frozen_blocks of the network whose backbone.name was changed"
        )
    for block in blocks[:num_blocks]:
        block.requires_grad_(False)


def freeze_batch_norm(module: nn.Module) -> None:
    """Sets every BatchNorm to eval mode, so that training does not change its statistics."""
    for norm in _batch_norms(module):
        norm.eval()


def freeze_batch_norm_affine(module: nn.Module) -> None:
    """Excludes the scale and shift of every BatchNorm from training, in place."""
    for norm in _batch_norms(module):
        norm.requires_grad_(False)


def _batch_norms(module: nn.Module) -> list[nn.Module]:
    return [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
