"""ReLU6 with half the memory gives the same numbers."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

from slams_ray.networks.backbone import build_backbone
from slams_ray.networks.relu6 import LeanReLU6, use_lean_relu6

VALUES = torch.tensor([-7.0, -0.0, 0.0, 1e-30, 3.0, 5.9999995, 6.0, 6.0000005, 70.0])


def outcome(layer: nn.Module, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    start = values.clone().requires_grad_()
    # A ReLU6 overwrites what a layer before it gave.
    output = layer(start * 1)
    weights = torch.arange(1.0, 1 + len(values)).to(values.dtype)
    (gradient,) = torch.autograd.grad((output * weights).sum(), start)
    return output, gradient


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_values_and_gradients_are_those_of_torch(dtype: torch.dtype) -> None:
    lean = nn.Sequential(nn.ReLU6(inplace=True))
    use_lean_relu6(lean)
    assert isinstance(lean[0], LeanReLU6)
    found = outcome(lean[0], VALUES.to(dtype))
    expected = outcome(nn.ReLU6(), VALUES.to(dtype))
    assert all(map(torch.equal, found, expected))


def test_it_overwrites_only_where_it_may() -> None:
    layers = nn.Sequential(nn.ReLU6(inplace=True), nn.ReLU6(), nn.ReLU(inplace=True))
    use_lean_relu6(layers)
    assert [type(layer) for layer in layers] == [LeanReLU6, nn.ReLU6, nn.ReLU]
    for learns in (False, True):
        given = VALUES.clone().requires_grad_(learns) * 1
        assert layers[0](given).data_ptr() == given.data_ptr()


def saved_bytes(compute: Callable[[], torch.Tensor]) -> int:
    """Bytes of all arrays that the backward pass needs; arrays that share memory count once."""
    sizes: dict[int, int] = {}
    kept = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor)
        storage = tensor.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        kept.append(compute())
    return sum(sizes.values())


def test_a_network_learns_the_same_and_keeps_less() -> None:
    torch.manual_seed(0)
    network = build_backbone("mobilenet_v2", 16).eval()
    lean = copy.deepcopy(network)
    use_lean_relu6(lean)
    images = torch.randn(2, 3, 96, 128)
    gradients = []
    for built in (network, lean):
        built(images).square().mean().backward()
        gradients.append([parameter.grad for parameter in built.parameters()])
    assert all(map(torch.equal, *gradients))
    assert saved_bytes(lambda: lean(images)) < 0.8 * saved_bytes(lambda: network(images))
