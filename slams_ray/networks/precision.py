"""What number formats a device computes in, and frozen weights in them."""

import torch
from torch import nn


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether a device has native bfloat16. Emulation is slower than float32."""
    if device.type == "cuda":
        # By default, torch counts emulation as support.
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))


def autocast_format(values: torch.Tensor) -> torch.dtype:
    """The number format in which a convolution computes these values, inside autocast or not."""
    kind = values.device.type
    if torch.is_autocast_enabled(kind) and values.dtype != torch.float64:
        return torch.get_autocast_dtype(kind)
    return values.dtype


def at_least_float32(values: torch.Tensor) -> torch.Tensor:
    """Values whose sum or mean is wanted. Autocast converts them on GPUs, and not on CPUs."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def convert_frozen(module: nn.Module, dtype: torch.dtype) -> None:
    """Converts convolutions and linear layers without gradients, in place, for use in autocast.

    Autocast itself would convert their weights in every pass, and gives the same result.
    """
    for layer in module.modules():
        is_frozen = not any(parameter.requires_grad for parameter in layer.parameters())
        if is_frozen and isinstance(layer, nn.Conv2d | nn.Linear):
            layer.to(dtype)
