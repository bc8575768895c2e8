"""Losses and gradients in bfloat16 autocast, which CPUs can compute, are close to float32."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from slams_ray.networks.backbone import freeze_batch_norm
from slams_ray.networks.cpu_convolutions import FastConv2d, use_fast_convolutions
from slams_ray.networks.frozen_batch_norm import merge_frozen_batch_norm
from slams_ray.networks.precision import convert_frozen
from slams_ray.networks.segmentation_network import SegmentationNetwork
from tests.tiny_tasks import TRAININGS

Make = Callable[..., Any]


@pytest.mark.parametrize("kind", TRAININGS)
def test_gradients_of_mixed_precision_point_where_those_of_float32_do(
    kind: str, make_any_task: Make, make_batch: Make, rows: list[dict[str, Any]]
) -> None:
    task = make_any_task(kind)
    batch = make_batch(task, rows)
    losses, gradients = [], []
    for is_mixed in (False, True):
        torch.manual_seed(0)
        module = task.build().train()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=is_mixed):
            loss, metrics = module(module.prepare(batch), np.random.default_rng(0), True)
        assert loss.dtype == torch.float32
        assert all(torch.isfinite(value) for value in metrics.values())
        loss.backward()
        learnt = [p.grad.flatten() for p in module.network.parameters() if p.grad is not None]
        losses.append(loss.detach())
        gradients.append(torch.cat(learnt))
    torch.testing.assert_close(losses[1], losses[0], rtol=0.05, atol=0.02)
    assert torch.cosine_similarity(*gradients, dim=0) > 0.95


class _OperationsInBfloat16(TorchDispatchMode):
    """Collects the names of operations with a bfloat16 argument."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = tree_leaves((args, kwargs))
        if any(isinstance(v, torch.Tensor) and v.dtype == torch.bfloat16 for v in given):
            self.names.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("kind", TRAININGS)
def test_losses_are_computed_in_float32(
    kind: str, make_any_task: Make, make_batch: Make, rows: list[dict[str, Any]]
) -> None:
    """Autocast itself sees to that on GPUs, and on CPUs for few functions."""
    task = make_any_task(kind)
    batch = make_batch(task, rows)
    module = task.build().train()
    module.convert_frozen(torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16), _OperationsInBfloat16() as seen:
        module(module.prepare(batch), np.random.default_rng(0), True)
    assert "convolution" in seen.names
    assert not seen.names & {"exp", "log", "log1p", "log2", "pow", "rsqrt", "sqrt", "cumsum"}
    assert not {name for name in seen.names if "softmax" in name or "loss" in name}
    assert not {name for name in seen.names if "sigmoid" in name or "entropy" in name}


@pytest.mark.parametrize("kind", ["slams", "occse", "clims"])
def test_frozen_networks_may_hold_the_format_that_autocast_computes_in(
    kind: str, make_any_task: Make, make_batch: Make, rows: list[dict[str, Any]]
) -> None:
    task = make_any_task(kind)
    batch = make_batch(task, rows)
    losses, gradients = [], []
    for is_converted in (False, True):
        torch.manual_seed(0)
        module = task.build().train()
        if is_converted:
            module.convert_frozen(torch.bfloat16)
        assert (torch.bfloat16 in {p.dtype for p in module.parameters()}) is is_converted
        assert {p.dtype for p in module.network.parameters()} == {torch.float32}
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss, _ = module(module.prepare(batch), np.random.default_rng(0), True)
        loss.backward()
        losses.append(loss.detach())
        gradients.append([p.grad for p in module.network.parameters() if p.grad is not None])
    assert torch.equal(*losses)
    for ours, theirs in zip(*gradients, strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("network", ["mobilenet_v2", "resnet18"])
def test_fast_convolutions_learn_in_mixed_precision_what_those_of_torch_do(network: str) -> None:
    """Both are as close to float32: random networks turn rounding into other gradients."""
    torch.manual_seed(0)
    plain = SegmentationNetwork(network, 16, 3, "deeplabv2").train()
    images = torch.randn(2, 3, 48, 40).to(memory_format=torch.channels_last)
    for norm in plain.modules():
        if isinstance(norm, nn.BatchNorm2d):
            # The statistics of these images, without which random networks have no signal.
            norm.momentum = 1.0
    plain(images)
    freeze_batch_norm(plain)
    fast = copy.deepcopy(plain)
    use_fast_convolutions(fast)
    merge_frozen_batch_norm(fast)
    assert any(isinstance(layer, FastConv2d) for layer in fast.modules())
    gradients = []
    for trained, is_mixed in ((plain, False), (plain, True), (fast, True)):
        trained.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=is_mixed):
            output = trained(images)
        output.float().square().mean().backward()
        assert {p.grad.dtype for p in trained.parameters() if p.grad is not None} == {torch.float32}
        gradients.append(torch.cat([p.grad.flatten() for p in trained.parameters()]))
    full, of_torch, ours = gradients
    of_torch, ours = (torch.cosine_similarity(full, one, dim=0) for one in (of_torch, ours))
    assert ours > of_torch - 0.03


def test_layers_that_learn_keep_float32() -> None:
    layers = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))
    layers[0].requires_grad_(False)
    layers[2].requires_grad_(False)
    convert_frozen(layers, torch.bfloat16)
    assert [layer.weight.dtype for layer in layers] == [
        torch.bfloat16,
        torch.float32,
        torch.float32,
    ]
