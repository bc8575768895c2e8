"""CUDA tensors on a machine without CUDA: torch's fake tensors, which have a device and no values.

An operation on a CPU tensor and a CUDA tensor raises, as on a real device, and autocast follows
CUDA's rules. Gradients need a real device.
"""

import functools
import gc
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv

CUDA = torch.device("cuda:0")


def _clear_caches() -> None:
    """Empties the caches of the package. They would mix fake tensors with real ones."""
    for cached in gc.get_objects():
        is_cache = type(cached) is functools._lru_cache_wrapper
        if is_cache and str(getattr(cached, "__module__", "")).startswith("slams_ray"):
            cached.cache_clear()


@pytest.fixture
def faked_cuda() -> Callable[..., AbstractContextManager[torch.device]]:
    """A context with a CUDA device whose tensors are fake. Build networks before it.

    Without a `shape_env`, an operation whose shape depends on values raises: it would wait for the
    device.
    """
    return _faked_cuda


@contextmanager
def _faked_cuda(shape_env: ShapeEnv | None = None) -> Iterator[torch.device]:
    _clear_caches()
    with pytest.MonkeyPatch.context() as patch, FakeTensorMode(shape_env=shape_env) as mode:
        for name in ("tensor", "as_tensor"):
            patch.setattr(torch, name, functools.partial(_made, getattr(torch, name)))
        patch.setattr(nn.Module, "to", functools.partialmethod(_moved, mode))
        patch.setattr(torch.Tensor, "numpy", _zeros)
        patch.setattr("torch.cuda.amp.common.amp_definitely_not_available", lambda: False)
        patch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
        yield CUDA
    _clear_caches()


def _moved(module: nn.Module, mode: FakeTensorMode, *args: Any, **kwargs: Any) -> nn.Module:
    """Module.to, which cannot swap fake parameters in place."""
    device, dtype, _, _ = torch._C._nn._parse_to(*args, **kwargs)

    def to(tensor: torch.Tensor) -> torch.Tensor:
        fake = tensor if isinstance(tensor, FakeTensor) else mode.from_tensor(tensor)
        fake = fake.detach() if device is None else fake.detach().to(device)
        return fake.to(dtype) if dtype and fake.is_floating_point() else fake

    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None:
                found = nn.Parameter(to(parameter), requires_grad=parameter.requires_grad)
                part._parameters[name] = found
        for name, buffer in part._buffers.items():
            part._buffers[name] = None if buffer is None else to(buffer)
    return module


def _made(real: Any, data: Any, *args: Any, device: Any = None, **kwargs: Any) -> torch.Tensor:
    """torch.tensor, which would fill memory of the device."""
    made = torch.from_numpy(data) if isinstance(data, np.ndarray) else real(data, *args, **kwargs)
    return made if device is None else torch.empty(made.shape, dtype=made.dtype, device=device)


NUMPY_DTYPES = {
    torch.float32: np.float32,
    torch.float64: np.float64,
    torch.uint8: np.uint8,
    torch.int32: np.int32,
    torch.int64: np.int64,
    torch.bool: np.bool_,
}


def _zeros(tensor: torch.Tensor) -> np.ndarray:
    """Tensor.numpy of a fake tensor on the CPU."""
    assert tensor.device.type == "cpu", f"numpy() of a tensor on {tensor.device}"
    return np.zeros(tuple(tensor.shape), NUMPY_DTYPES[tensor.dtype])
