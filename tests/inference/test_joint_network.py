"""Networks with equal first blocks compute them once, and give what they give alone."""

import copy
import weakref
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from slams_ray.inference.activation_predictor import ActivationPredictor
from slams_ray.inference.joint_network import JointNetwork, grouped, num_equal_blocks, parts
from slams_ray.inference.onnx_runtime import with_onnxruntime
from slams_ray.inference.precision import optimize_for_inference
from slams_ray.networks.activation_network import ActivationNetwork
from slams_ray.networks.conditioned_network import ConditionedNetwork

CPU = torch.device("cpu")
SCALES = (0.5, 1.0)


def make(seed: int, name: str = "tiny_resnet", stride: int = 8) -> ActivationNetwork:
    torch.manual_seed(seed)
    network = ActivationNetwork(name, stride, 3)
    for child in network.modules():
        if isinstance(child, nn.BatchNorm2d):
            nn.init.uniform_(child.running_var, 0.5, 1.5)
    return network.eval()


def with_changed(network: ActivationNetwork, first_changed: int) -> ActivationNetwork:
    """A copy whose blocks from `first_changed` on, and head, have other weights."""
    changed = copy.deepcopy(network)
    with torch.no_grad():
        for module in (*changed.backbone.blocks[first_changed:], changed.head):
            for parameter in module.parameters():
                parameter.mul_(0.9)
    return changed


def predicted(networks: dict[str, nn.Module]) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (32, 48, 3)).astype(np.uint8) for _ in range(2)]
    predictor = ActivationPredictor(networks, scales=SCALES, flip=True, device=CPU)
    return predictor.activate_batch(images, [[1, 3], [2]])


@pytest.mark.parametrize(
    ("name", "shared"), [("tiny_resnet", 2), ("mobilenet_v2", 7), ("resnet50", 6)]
)
def test_logits_are_those_of_each_network_and_shared_blocks_run_once(
    name: str, shared: int
) -> None:
    first = make(0, name)
    networks = {"cam": first, "slams": with_changed(first, shared)}
    images = torch.randn(2, 3, 40, 56)
    expected = {key: network(images) for key, network in networks.items()}
    ((names, joint),) = grouped(networks)
    assert names == ("cam", "slams")
    calls: Counter[str] = Counter()
    joint.shared.register_forward_hook(lambda *_: calls.update(["shared"]))
    found = {key: part(images) for key, part in parts(joint, names).items()}
    assert calls["shared"] == 1
    for key, logits in expected.items():
        torch.testing.assert_close(found[key], logits)


def test_only_equal_leading_blocks_are_shared() -> None:
    first = make(0)
    assert num_equal_blocks(first, with_changed(first, 2)) == 2
    assert num_equal_blocks(first, with_changed(first, 0)) == 0
    assert num_equal_blocks(first, copy.deepcopy(first)) == len(first.backbone.blocks)
    # The weights of both strides are the same, but not all layers.
    assert num_equal_blocks(make(0, stride=4), make(0, stride=8)) == 3
    of_labels = ConditionedNetwork("tiny_resnet", 8, 3).eval()
    of_labels.backbone.load_state_dict(first.backbone.state_dict())
    found = grouped({"a": first, "b": make(1), "c": of_labels, "d": with_changed(first, 3)})
    assert [names for names, _ in found] == [("a", "d"), ("b",), ("c",)]
    joint = found[0][1]
    assert isinstance(joint, JointNetwork)
    assert len(joint.shared) == 3
    assert len(joint.own) == 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("runtime", [lambda network: network, with_onnxruntime])
def test_maps_of_a_predictor_stay(dtype: torch.dtype, runtime: Any) -> None:
    if runtime is with_onnxruntime:
        pytest.importorskip("onnxruntime")
        if dtype != torch.float32:
            pytest.skip("ONNX Runtime computes in float32 alone")
    first = make(0)
    alone = {"cam": first, "slams": with_changed(first, 3), "other": make(1)}
    expected = predicted(
        {k: optimize_for_inference(copy.deepcopy(n), dtype, CPU) for k, n in alone.items()}
    )
    joined: dict[str, nn.Module] = {}
    for names, network in grouped(alone):
        made = runtime(optimize_for_inference(network, dtype, CPU))
        joined |= {names[0]: made} if len(names) == 1 else parts(made, names)
    for own, found in zip(expected, predicted(joined), strict=True):
        for column, maps in own.items():
            difference = np.abs(maps.astype(int) - found[column])
            assert difference.max() <= (1 if dtype == torch.float32 else 26)
            assert maps.max() == 255


def test_a_predictor_runs_shared_blocks_once_a_scale() -> None:
    first = make(0)
    ((names, joint),) = grouped({"cam": first, "slams": with_changed(first, 3)})
    passes = []
    joint.shared.register_forward_hook(lambda *_: passes.append(1))
    predicted(parts(joint, names))
    assert len(passes) == len(SCALES)


def test_parts_that_are_called_out_of_turn_compute_again() -> None:
    first = make(0)
    networks = {"a": first, "b": with_changed(first, 2)}
    ((names, joint),) = grouped(networks)
    pair = parts(joint, names)
    images, others = torch.randn(2, 2, 3, 32, 32).unbind()
    for name, inputs in (("a", images), ("a", images), ("b", others), ("a", others), ("b", images)):
        torch.testing.assert_close(pair[name](inputs), networks[name](inputs))


def test_a_batch_that_nobody_took_is_freed_before_the_next_is_computed() -> None:
    """As after a group of images that did not fit into memory."""
    first = make(0)
    ((names, joint),) = grouped({"cam": first, "slams": with_changed(first, 2)})
    part = parts(joint, names)["cam"]
    images = torch.randn(1, 3, 32, 32)
    part(images)
    left = weakref.ref(images)
    del images
    alive: list[bool] = []
    joint.register_forward_pre_hook(lambda *_: alive.append(left() is not None))
    part(torch.randn(1, 3, 32, 32))
    assert alive == [False]
