"""Convolutions that torch computes slowly on a CPU, computed in faster ways.

Results differ by rounding. On other devices nothing changes.
"""

from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.nn.grad import conv2d_input, conv2d_weight

from slams_ray.networks.precision import autocast_format

NUM_FEW_CHANNELS = 128
"""Largest number of output channels, such as classes, whose gradient is a matrix product."""
_POINTWISE, _KERNEL = (1, 1), (3, 3)
# A kernel of one pixel has nothing to dilate, so that this only chooses the library.
_ONEDNN = (2, 2)
# torch keeps a single image of so few values from oneDNN, and computes it slowest if it is dilated.
_FEW_VALUES = 20480
# torch does not annotate these.
_input_gradient: Any = conv2d_input
_filter_gradient: Any = conv2d_weight


def use_fast_convolutions(module: nn.Module) -> None:
    """Lets the convolutions of a module that are slow on a CPU compute as `convolve`, in place."""
    for layer in module.modules():
        if type(layer) is nn.Conv2d and (_is_pointwise(layer) or _is_slow(layer)):
            layer.__class__ = FastConv2d


class FastConv2d(nn.Conv2d):
    """A convolution that `convolve` computes."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return convolve(self, features, self.weight, self.bias)


def convolve(
    layer: nn.Conv2d, features: torch.Tensor, filters: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    """Convolves (B, C, H, W) features as a layer does, with other filters and another bias.

    On one thread torch computes 1x1 convolutions of fewer than 16 images by matrix products of
    another library, unless they are dilated (use_mkldnn in ATen/native/Convolution.cpp). Here
    oneDNN computes them. `_Dilated` and `_Strided` compute gradients that torch computes slowly.
    """
    # A trace for ONNX must not depend on the size of its example.
    if features.device.type == "cpu" and not torch.jit.is_tracing():  # type: ignore[attr-defined,no-untyped-call]
        is_learnt = torch.is_grad_enabled() and (features.requires_grad or filters.requires_grad)
        dtype = autocast_format(features)
        fast = _fast_gradients(layer, dtype) if is_learnt else None
        if fast is not None:
            # Inside `fast`, autocast would convert copies that the backward pass does not get.
            inputs = features.to(dtype), filters.to(autocast_format(filters)), bias
            convolved: torch.Tensor = fast.apply(*inputs, layer.dilation[0])
            return convolved
        if _is_pointwise(layer) and _is_for_onednn(features):
            return F.conv2d(features, filters, bias, layer.stride, dilation=_ONEDNN)
    return layer._conv_forward(features, filters, bias)


def _is_pointwise(layer: nn.Conv2d) -> bool:
    return layer.kernel_size == _POINTWISE and layer.groups == 1 and layer.padding == (0, 0)


def _is_for_onednn(features: torch.Tensor) -> bool:
    if features.dtype != torch.float32 or not torch.backends.mkldnn.enabled:
        return False
    return features.shape[0] > 1 or features.numel() > _FEW_VALUES


def _is_slow(layer: nn.Conv2d) -> bool:
    """Whether torch computes the gradients slowly in some number format."""
    return _fast_gradients(layer, torch.bfloat16) is not None


def _fast_gradients(layer: nn.Conv2d, dtype: torch.dtype) -> type[torch.autograd.Function] | None:
    """Returns what computes the layer with faster gradients than torch's, if anything does."""
    stride, rate = layer.stride, layer.dilation
    is_even = stride[0] == stride[1] and rate[0] == rate[1]
    is_padded = layer.padding == rate and layer.padding_mode == "zeros"
    if layer.kernel_size != _KERNEL or not is_even or not is_padded:
        return None
    is_depthwise = layer.groups == layer.in_channels == layer.out_channels
    has_few_outputs = layer.groups == 1 and layer.out_channels <= NUM_FEW_CHANNELS
    if stride == (1, 1) and rate != (1, 1) and (is_depthwise or has_few_outputs):
        return _Dilated
    if stride == (2, 2) and rate == (1, 1) and is_depthwise and dtype == torch.bfloat16:
        return _Strided
    return None


class _Dilated(torch.autograd.Function):
    """A dilated 3x3 convolution, depthwise or to few channels, with fast gradients.

    torch computes these gradients slowly (docs/performance_notes.md), and in bfloat16 torch 2.15
    computes wrong ones of depthwise filters on maps from 29 x 29 on. Here they are made of
    convolutions without dilation, or with mirrored filters.
    """

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
        is_depthwise = features.shape[1] > filters.shape[1]
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


class _Strided(torch.autograd.Function):
    """A depthwise 3x3 convolution of stride 2, with a fast gradient of its input in bfloat16.

    torch computes that gradient one value after another. Here it is a convolution of the output's
    gradient, with zeros between its values, with mirrored filters.
    """

    @staticmethod
    def forward(
        ctx: Any,
        features: torch.Tensor,
        filters: torch.Tensor,
        bias: torch.Tensor | None,
        rate: int,
    ) -> torch.Tensor:
        ctx.save_for_backward(features, filters)
        return F.conv2d(features, filters, bias, stride=2, padding=1, groups=features.shape[1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        features, filters = ctx.saved_tensors
        groups = features.shape[1]
        found: list[torch.Tensor | None] = [None] * 4
        if ctx.needs_input_grad[0]:
            spread = torch.zeros_like(features)
            spread[:, :, ::2, ::2] = gradient
            found[0] = _depthwise_features(features, filters, spread, rate=1)
        if ctx.needs_input_grad[1]:
            found[1] = _filter_gradient(
                features, filters.shape, gradient, stride=2, padding=1, groups=groups
            )
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
    return _filter_gradient(grids, filters.shape, grid_gradients, padding=1, groups=groups)


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
    return _input_gradient(features.shape, filters, gradient, padding=rate, dilation=rate)


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
    of_taps = _filter_gradient(features, shape, torch.cat(seen, dim=1), dilation=_ONEDNN)
    found = torch.zeros_like(filters)
    for (row, column), of_tap in zip(taps, of_taps.split(num_filters), strict=True):
        found[:, :, row, column] = of_tap[:, :, 0, 0]
    return found
