"""Frozen BatchNorm in training, computed by the convolution before it.

Source: You et al., "Efficient ConvBN Blocks for Transfer Learning and Beyond" (arXiv 2305.11624),
Tune mode. With fixed statistics, normalising the output of a convolution is the same function as
scaling its filters, which are far smaller than its output. Scale and shift still learn.
"""

from typing import Any

import torch
from torch import nn

from slams_ray.networks.batch_norm import followed_by_batch_norm


class NormalisedConv2d(nn.Conv2d):
    """A convolution followed by a BatchNorm whose statistics are fixed."""

    # In a tuple, because a module would become a part of this one and change names of parameters.
    norms: tuple[nn.Module]

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        norm: Any = self.norms[0]
        scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
        shift = torch.addcmul(norm.bias, norm.running_mean, scale, value=-1)
        if self.bias is not None:
            shift = shift + self.bias * scale
        return self._conv_forward(features, self.weight * scale[:, None, None, None], shift)


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
