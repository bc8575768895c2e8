from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from slams_ray.inference.activation_predictor import ActivationPredictor
from slams_ray.inference.precision import inference_dtype, optimize_for_inference
from slams_ray.networks.activation_network import ActivationNetwork
from slams_ray.networks.cpu_convolutions import FastConv2d
from slams_ray.networks.segmentation_network import SegmentationNetwork

CPU = torch.device("cpu")


def trained(network: nn.Module) -> nn.Module:
    """With BatchNorm statistics of what it is going to see, as after a training."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        network.train()(images())
    return network.eval()


def activation_network() -> nn.Module:
    torch.manual_seed(0)
    return trained(ActivationNetwork("tiny_resnet", 8, 3))


def segmentation_network() -> nn.Module:
    torch.manual_seed(0)
    return trained(SegmentationNetwork("tiny_resnet", 8, 3, "deeplabv3"))


def images() -> torch.Tensor:
    return torch.rand(4, 3, 64, 80, generator=torch.Generator().manual_seed(0)) * 4 - 2


@pytest.mark.parametrize("build", [activation_network, segmentation_network])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 0.1)], ids=["f32", "bf16"]
)
def test_it_takes_and_returns_float32_close_to_the_network_as_trained(
    build: Callable[[], nn.Module], dtype: torch.dtype, tolerance: float
) -> None:
    with torch.inference_mode():
        expected = build()(images())
        network = optimize_for_inference(build(), dtype, CPU)
        found = network(images())
    assert found.dtype == torch.float32
    assert {p.dtype for p in network.parameters()} == {dtype}
    assert (found - expected).abs().mean() < tolerance * expected.abs().mean()


def test_bfloat16_is_what_it_computes_in() -> None:
    found = optimize_for_inference(activation_network(), torch.bfloat16, CPU)(images())
    assert torch.equal(found, found.to(torch.bfloat16).float())


def test_maps_differ_by_few_levels_between_precisions() -> None:
    predictor = ActivationPredictor(
        {
            "whole": optimize_for_inference(activation_network(), torch.float32, CPU),
            "half": optimize_for_inference(activation_network(), torch.bfloat16, CPU),
        },
        scales=(0.5, 1.0),
        flip=True,
        device=CPU,
    )
    coarse = np.random.default_rng(0).integers(0, 256, (96, 128, 3)).astype(np.uint8)
    maps = predictor.activate_batch([coarse], [[1, 2, 3]])[0]
    difference = np.abs(maps["whole"].astype(int) - maps["half"].astype(int))
    assert 0 < difference.mean() < 8


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"amx_bf16": True, "avx512_bf16": False}, torch.bfloat16),
        ({"amx_bf16": False, "avx512_bf16": True}, torch.bfloat16),
        ({"avx512_f": True}, torch.float32),
    ],
)
def test_auto_is_bfloat16_only_where_the_cpu_multiplies_it(
    monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, bool], expected: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert inference_dtype("auto", CPU) == expected
    assert inference_dtype("float32", CPU) == torch.float32
    assert inference_dtype("bfloat16", CPU) == torch.bfloat16


@pytest.mark.parametrize("supported", [True, False])
def test_auto_does_not_take_emulation_on_a_gpu_for_support(
    monkeypatch: pytest.MonkeyPatch, supported: bool
) -> None:
    monkeypatch.setattr(
        torch.cuda,
        "is_bf16_supported",
        lambda including_emulation=True: including_emulation or supported,
    )
    expected = torch.bfloat16 if supported else torch.float32
    assert inference_dtype("auto", torch.device("cuda")) == expected


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_slow_convolutions_are_computed_in_faster_ways_on_cpus(device: str) -> None:
    network = optimize_for_inference(activation_network(), torch.float32, torch.device(device))
    is_fast = any(isinstance(layer, FastConv2d) for layer in network.modules())
    assert is_fast is (device == "cpu")
