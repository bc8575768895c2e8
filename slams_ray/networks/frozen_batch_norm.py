"""Frozen BatchNorm in training, computed by the convolution before it.

Source: You et al., "Efficient ConvBN Blocks for Transfer Learning and Beyond" (arXiv 2305.11624),
Tune mode. With fixed statistics, normalising the output of a convolution is the same function as
scaling its filters, which are far smaller than its output. Scale and shift still learn.
"""

import operator
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import nn

from slams_ray.networks.batch_norm import followed_by_batch_norm
from slams_ray.networks.cpu_convolutions import convolve
from slams_ray.networks.precision import autocast_format


class Merged(NamedTuple):
    """A convolution and its BatchNorm as one convolution.

    Attributes:
        sources: the parameters it was made of.
    """

    sources: tuple[torch.Tensor, ...]
    filters: torch.Tensor
    shift: torch.Tensor


class NormalisedConv2d(nn.Conv2d):
    """A convolution followed by a BatchNorm whose statistics are fixed.

    Attributes:
        shared: what passes in `merged_once` share, otherwise None.
    """

    # In a tuple, because a module would become a part of this one and change names of parameters.
    norms: tuple[nn.Module]
    shared: Merged | None = None

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        merged = self.shared
        # functional_call puts other tensors in the place of the parameters for one pass.
        if merged is None or any(map(operator.is_not, merged.sources, self.sources)):
            merged = _merged([self])[0]
        return convolve(self, features, merged.filters, merged.shift)

    @property
    def sources(self) -> tuple[torch.Tensor, ...]:
        """The parameters of the convolution and of the BatchNorm."""
        norm = _norm_of(self)
        own = (self.weight,) if self.bias is None else (self.weight, self.bias)
        return *own, norm.weight, norm.bias


class AppliedBatchNorm2d(nn.Module):
    """Holds the parameters of a BatchNorm that the convolution before it applies."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features


def merge_frozen_batch_norm(module: nn.Module) -> None:
    """Lets every convolution apply the BatchNorm that directly follows it, in place.

    Parameters, their names and the function of the module in eval mode stay. The statistics never
    change again.
    """
    convolution: Any
    norm: Any
    for _, (_, convolution), (_, norm) in followed_by_batch_norm(module):
        convolution.__class__ = NormalisedConv2d
        norm.__class__ = AppliedBatchNorm2d
        convolution.norms = (norm,)


@contextmanager
def merged_once(module: nn.Module) -> Iterator[None]:
    """Context in which all forward passes of a module use the same scaled filters.

    One backward pass must follow for all of them. A GPU starts fewer kernels: scales of all
    convolutions are computed together, and those of a second pass not at all. A pass with other
    parameters, as by `functional_call`, scales its own filters.
    """
    convolutions = [child for child in module.modules() if isinstance(child, NormalisedConv2d)]
    groups: dict[tuple[float, bool], list[NormalisedConv2d]] = {}
    for convolution in convolutions:
        norm = _norm_of(convolution)
        # A concatenation needs gradients if any part does. So frozen norms have their own group.
        is_learnt = norm.weight.requires_grad or norm.bias.requires_grad
        groups.setdefault((norm.eps, is_learnt), []).append(convolution)
    try:
        for group in groups.values():
            for convolution, merged in zip(group, _merged(group), strict=True):
                convolution.shared = merged
        yield
    finally:
        for convolution in convolutions:
            convolution.shared = None


def _merged(convolutions: Sequence[NormalisedConv2d]) -> list[Merged]:
    """Merges each convolution with its BatchNorm. The BatchNorms must have the same epsilon.

    Filters and shift have the number format of autocast, so that passes do not convert them again.
    """
    norms = [_norm_of(convolution) for convolution in convolutions]
    scale = torch.cat([norm.weight for norm in norms])
    scale = scale * (torch.cat([norm.running_var for norm in norms]) + norms[0].eps).rsqrt()
    mean, bias = (torch.cat([getattr(n, name) for n in norms]) for name in ("running_mean", "bias"))
    shift = torch.addcmul(bias, mean, scale, value=-1)
    dtype = autocast_format(scale)
    sizes = [convolution.out_channels for convolution in convolutions]
    own = zip(torch.split(scale, sizes), torch.split(shift.to(dtype), sizes), strict=True)
    merged = []
    for convolution, (own_scale, own_shift) in zip(convolutions, own, strict=True):
        if convolution.bias is not None:
            own_shift = own_shift + (convolution.bias * own_scale).to(dtype)
        filters = convolution.weight * own_scale[:, None, None, None]
        merged.append(Merged(convolution.sources, filters.to(dtype), own_shift))
    return merged


def _norm_of(convolution: NormalisedConv2d) -> Any:
    return convolution.norms[0]
