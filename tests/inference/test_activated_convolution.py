"""A convolution with its activation merged gives the bits of the two."""

import copy

import pytest
import torch
from torch import nn

from slams_ray.inference.activated_convolution import ActivatedConv2d, merge_activations
from slams_ray.inference.precision import multiplies_bfloat16
from slams_ray.networks.backbone import build_backbone
from slams_ray.networks.batch_norm import fold_batch_norm

needs_bfloat16 = pytest.mark.skipif(
    not multiplies_bfloat16(torch.device("cpu")), reason="this CPU does not multiply bfloat16"
)


def images(channels: int) -> torch.Tensor:
    noise = torch.randn(2, channels, 33, 40, generator=torch.Generator().manual_seed(0)) * 4
    return noise.to(torch.bfloat16).contiguous(memory_format=torch.channels_last)


@needs_bfloat16
@pytest.mark.parametrize("activation", [nn.ReLU, nn.ReLU6])
@pytest.mark.parametrize(
    "convolution",
    [
        nn.Conv2d(16, 24, 1),
        nn.Conv2d(16, 16, 3, padding=2, dilation=2, groups=16, bias=False),
        nn.Conv2d(16, 8, 3, stride=2, padding=1),
    ],
    ids=["pointwise", "depthwise", "strided"],
)
def test_the_bits_are_those_of_the_two_one_after_the_other(
    convolution: nn.Conv2d, activation: type[nn.Module]
) -> None:
    plain = (
        nn.Sequential(convolution, activation())
        .to(torch.bfloat16)
        .to(memory_format=torch.channels_last)
    )
    merged = copy.deepcopy(plain)
    merge_activations(merged)
    assert [type(m) for m in merged] == [ActivatedConv2d, nn.Identity]
    with torch.inference_mode():
        expected = plain(images(16))
        assert torch.equal(merged(images(16)), expected)
    assert 0 < (expected == 0).float().mean() < 1
    # With gradients, which the merged operator lacks.
    merged(images(16)).float().sum().backward()
    gradient = next(merged.parameters()).grad
    assert gradient is not None
    assert gradient.abs().sum() > 0


@needs_bfloat16
@pytest.mark.parametrize(("name", "fewest"), [("mobilenet_v2", 35), ("tiny_resnet", 1)])
def test_a_folded_backbone_keeps_its_output_and_its_keys(name: str, fewest: int) -> None:
    torch.manual_seed(0)
    plain = fold_batch_norm(build_backbone(name, 8).eval()).to(torch.bfloat16)
    merged = copy.deepcopy(plain)
    merge_activations(merged)
    assert sum(isinstance(m, ActivatedConv2d) for m in merged.modules()) >= fewest
    assert list(merged.state_dict()) == list(plain.state_dict())
    with torch.inference_mode():
        assert torch.equal(merged(images(3)), plain(images(3)))


def test_what_does_not_directly_follow_stays() -> None:
    network = nn.Sequential(
        nn.ReLU(), nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 3, 1), nn.GELU()
    )
    before = [type(m) for m in network]
    merge_activations(network)
    assert [type(m) for m in network] == before
