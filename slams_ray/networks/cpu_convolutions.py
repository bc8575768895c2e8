"""Convolutions that torch computes slowly on a CPU, computed in faster ways.

Results differ by rounding. On other devices nothing changes.
"""

from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.nn.grad import conv2d_input, conv2d_weight

NUM_FEW_CHANNELS = 128
"""Largest number of output channels, such as classes, whose gradient is a matrix product."""
_POINTWISE, _KERNEL = (1, 1), (3, 3)
# A kernel of one pixel has nothing to dilate, so that this changes nothing but the library.
_ONEDNN = (2, 2)
# torch does not annotate these.
_of_features: Any = conv2d_input
_of_filters: Any = conv2d_weight


def use_onednn(module: nn.Module) -> None:
    """Lets torch compute all 1x1 convolutions of a module with oneDNN on a CPU, in place.

    For batches of fewer than 16 images on one thread torch prefers matrix products of another
    library (use_mkldnn in ATen/native/Convolution.cpp), but never for a dilated convolution. With
    channels last, oneDNN needs 0.4 to 0.9 of that time. With channels first it can be slower.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d) and layer.kernel_size == _POINTWISE:
            layer.dilation = _ONEDNN


def use_fast_gradients(module: nn.Module) -> None:
    """Lets all dilated convolutions of a module compute their gradients fast, in place."""
    for layer in module.modules():
        if type(layer) is nn.Conv2d and _has_slow_gradient(layer):
            layer.__class__ = DilatedConv2d


def convolve(
    layer: nn.Conv2d, features: torch.Tensor, filters: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    """Convolves (B, C, H, W) features as a layer does, with other filters and another bias."""
    is_learnt = torch.is_grad_enabled() and (features.requires_grad or filters.requires_grad)
    if is_learnt and features.device.type == "cpu" and _has_slow_gradient(layer):
        convolved: torch.Tensor = _Dilated.apply(features, filters, bias, layer.dilation[0])
        return convolved
    return layer._conv_forward(features, filters, bias)


class DilatedConv2d(nn.Conv2d):
    """A convolution whose gradients `convolve` computes."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return convolve(self, features, self.weight, self.bias)


def _has_slow_gradient(layer: nn.Conv2d) -> bool:
    rate = layer.dilation
    keeps_size = layer.stride == (1, 1) and layer.padding == rate and rate[0] == rate[1]
    if layer.kernel_size != _KERNEL or rate == (1, 1) or not keeps_size:
        return False
    if layer.groups == 1:
        return layer.out_channels <= NUM_FEW_CHANNELS
    return layer.groups == layer.in_channels == layer.out_channels


class _Dilated(torch.autograd.Function):
    """A dilated 3x3 convolution: depthwise, or from all channels to few."""

    @staticmethod
    def forward(
        ctx: Any,
        features: torch.Tensor,
        filters: torch.Tensor,
        bias: torch.Tensor | None,
        rate: int,
    ) -> torch.Tensor:
        ctx.save_for_backward(features, filters)
        ctx.rate = rate
        groups = features.shape[1] // filters.shape[1]
        return F.conv2d(features, filters, bias, padding=rate, dilation=rate, groups=groups)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        features, filters = ctx.saved_tensors
        is_depthwise = filters.shape[1] == 1
        found: list[torch.Tensor | None] = [None] * 4
        if ctx.needs_input_grad[0]:
            of_features = _depthwise_features if is_depthwise else _dense_features
            found[0] = of_features(features, filters, gradient, ctx.rate)
        if ctx.needs_input_grad[1]:
            of_filters = _depthwise_filters if is_depthwise else _dense_filters
            found[1] = of_filters(features, filters, gradient, ctx.rate)
        if ctx.needs_input_grad[2]:
            found[2] = gradient.sum(dim=(0, 2, 3))
        return tuple(found)


def _depthwise_features(
    features: torch.Tensor, filters: torch.Tensor, gradient: torch.Tensor, rate: int
) -> torch.Tensor:
    """The gradient convolved with the mirrored filters."""
    groups = features.shape[1]
    return F.conv2d(gradient, filters.flip(2, 3), padding=rate, dilation=rate, groups=groups)


def _depthwise_filters(
    features: torch.Tensor, filters: torch.Tensor, gradient: torch.Tensor, rate: int
) -> torch.Tensor:
    """Gradient of a convolution without dilation, of the grids of every rate-th pixel."""
    grids, grid_gradients = _grids(features, rate), _grids(gradient, rate)
    groups = features.shape[1]
    return _of_filters(grids, filters.shape, grid_gradients, padding=1, groups=groups)


def _grids(maps: torch.Tensor, rate: int) -> torch.Tensor:
    """(B, C, H, W) -> (B rate², C, h, w) pixels with distance rate; ends are filled with 0."""
    rows, columns = maps.shape[2:]
    filled = F.pad(maps, (0, -columns % rate, 0, -rows % rate))
    number, channels, height, width = filled.shape
    apart = filled.permute(0, 2, 3, 1).reshape(
        number, height // rate, rate, width // rate, rate, channels
    )
    return apart.permute(0, 2, 4, 1, 3, 5).flatten(0, 2).permute(0, 3, 1, 2)


def _dense_features(
    features: torch.Tensor, filters: torch.Tensor, gradient: torch.Tensor, rate: int
) -> torch.Tensor:
    return _of_features(features.shape, filters, gradient, padding=rate, dilation=rate)


def _dense_filters(
    features: torch.Tensor, filters: torch.Tensor, gradient: torch.Tensor, rate: int
) -> torch.Tensor:
    """Gradient of a 1x1 convolution that gives every tap of the filters its own channels."""
    rows, columns = features.shape[2:]
    # Other taps see nothing but the padding.
    taps = [
        (row, column)
        for row in range(_KERNEL[0])
        for column in range(_KERNEL[1])
        if abs(row - 1) * rate < rows and abs(column - 1) * rate < columns
    ]
    padded = F.pad(gradient, (rate,) * 4)
    seen = [
        padded[:, :, (2 - row) * rate :, (2 - column) * rate :][:, :, :rows, :columns]
        for row, column in taps
    ]
    num_filters, num_channels = filters.shape[:2]
    shape = (len(taps) * num_filters, num_channels, *_POINTWISE)
    of_taps = _of_filters(features, shape, torch.cat(seen, dim=1), dilation=_ONEDNN)
    found = torch.zeros_like(filters)
    for (row, column), of_tap in zip(taps, of_taps.split(num_filters), strict=True):
        found[:, :, row, column] = of_tap[:, :, 0, 0]
    return found
