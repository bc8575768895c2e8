"""Speeds up trained networks for inference: folded layers, channels last, bfloat16."""

from typing import Any, TypeVar

import torch
from torch import nn

from slams_ray.networks.batch_norm import fold_batch_norm
from slams_ray.networks.cpu_convolutions import use_fast_convolutions
from slams_ray.networks.precision import multiplies_bfloat16

Network = TypeVar("Network", bound=nn.Module)


def optimize_for_inference(network: Network, dtype: torch.dtype, device: torch.device) -> Network:
    """Optimizes a network in place: eval mode, folded BatchNorm, channels last, dtype.

    On a CPU, slow convolutions are computed in faster ways.

    The network computes in dtype, and takes and returns float32. Maps differ by rounding: one of
    255 levels in 0.2 % of the stored pixels.

    Args:
        device: device that the network is moved to.
    """
    network = fold_batch_norm(network.eval()).to(memory_format=torch.channels_last)
    if device.type == "cpu":
        use_fast_convolutions(network)
    if dtype != torch.float32:
        network.to(dtype)
        network.register_forward_pre_hook(lambda _, inputs: tuple(i.to(dtype) for i in inputs))
        network.register_forward_hook(_to_float32)
    return network


def _to_float32(_module: nn.Module, _inputs: Any, output: Any) -> Any:
    """Hook for networks that return a tensor, or a tuple of tensors."""
    if isinstance(output, tuple):
        return tuple(part.float() for part in output)
    return output.float()


def inference_dtype(precision: str, device: torch.device) -> torch.dtype:
    """Returns the dtype that a precision of `InferenceConfig` means on a device."""
    if precision == "auto":
        return torch.bfloat16 if multiplies_bfloat16(device) else torch.float32
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[precision]
