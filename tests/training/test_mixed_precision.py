"""Losses and gradients in bfloat16 autocast, which CPUs can compute, are close to float32."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from slams_ray.networks.activation_network import ActivationNetwork, classification_scores
from slams_ray.networks.precision import convert_frozen
from slams_ray.networks.segmentation_network import SegmentationNetwork
from slams_ray.networks.semantic_encoder import SemanticEncoder
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


def test_sums_and_means_of_many_values_are_float32() -> None:
    """Autocast itself sees to that on GPUs."""
    images = torch.randn(2, 3, 32, 32)
    encoder = SemanticEncoder("tiny_resnet", 8, 3, 4)
    segmentation = SegmentationNetwork("tiny_resnet", 8, 3, "deeplabv2")
    classifier = ActivationNetwork("tiny_resnet", 8, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = classifier(images)
        sums = (encoder(images), segmentation(images), classification_scores(logits))
    assert logits.dtype == torch.bfloat16
    assert [found.dtype for found in sums] == 3 * [torch.float32]


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
