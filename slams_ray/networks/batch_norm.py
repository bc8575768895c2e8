"""BatchNorm that is synchronised over workers in training, and merged into convolutions later."""

from itertools import pairwise
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

Network = TypeVar("Network", bound=nn.Module)


class _SumOverWorkers(torch.autograd.Function):
    """Sums a tensor over all workers; the gradient is the sum of the workers' gradients."""

    @staticmethod
    def forward(ctx: Any, values: torch.Tensor) -> torch.Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        total = gradient.clone()
        dist.all_reduce(total)
        return total


class SynchronisedBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm over the images of all workers, so that one and N workers take the same step.

    It is for CPUs (see `synchronise_batch_norm`). Workers may have different numbers of images.
    """

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        if not self.training or not dist.is_initialized() or dist.get_world_size() == 1:
            return super().forward(features)
        # In float32 and around the mean: a difference of large squares loses precision.
        values = features.float()
        own = values.new_full((1,), values.numel() // values.shape[1])
        # The count is sent with the sum: a second collective would double the cost.
        total = _SumOverWorkers.apply(torch.cat([values.mean(dim=(0, 2, 3)) * own, own]))
        num_values = total[-1]
        mean = total[:-1] / num_values
        centred = values - mean[:, None, None]
        share = own / num_values
        variance = _SumOverWorkers.apply(centred.square().mean(dim=(0, 2, 3)) * share)
        assert self.momentum is not None
        assert self.num_batches_tracked is not None
        assert self.running_mean is not None
        assert self.running_var is not None
        with torch.no_grad():
            unbiased = variance * (num_values / (num_values - 1))
            self.num_batches_tracked.add_(1)
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(unbiased, self.momentum)
        scale = self.weight * (variance + self.eps).rsqrt()
        normalised = centred * scale[:, None, None] + self.bias[:, None, None]
        return normalised.to(features.dtype)


def fold_batch_norm(module: Network) -> Network:
    """Merges every BatchNorm that directly follows a convolution into it, in place.

    The network must be frozen and in eval mode. Its function stays the same.
    """
    for parent, (name, convolution), (norm_name, norm) in followed_by_batch_norm(module):
        setattr(parent, name, fuse_conv_bn_eval(convolution, norm))
        setattr(parent, norm_name, nn.Identity())
    return module


def followed_by_batch_norm(
    module: nn.Module,
) -> list[tuple[nn.Module, tuple[str, nn.Conv2d], tuple[str, nn.BatchNorm2d]]]:
    """Returns the convolutions that a BatchNorm directly follows.

    Returns:
        the parent, and the name and module of the convolution and of the BatchNorm in it.
    """
    return [
        (parent, (name, child), (next_name, following))
        for parent in module.modules()
        for (name, child), (next_name, following) in pairwise(parent.named_children())
        if isinstance(child, nn.Conv2d) and isinstance(following, nn.BatchNorm2d)
    ]


def synchronise_batch_norm(module: nn.Module, device: str = "cpu") -> nn.Module:
    """Replaces every BatchNorm2d by a synchronised one, in place; parameters and names stay.

    Args:
        device: type of the device that will compute. GPUs get torch's SyncBatchNorm, whose kernels
            are fused; it refuses CPU tensors. A module that is itself a BatchNorm2d is returned
            anew.
    """
    if device == "cuda":
        converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(module)  # type: ignore[no-untyped-call]
        return converted
    for child in module.modules():
        if type(child) is nn.BatchNorm2d:
            child.__class__ = SynchronisedBatchNorm2d
    return module
