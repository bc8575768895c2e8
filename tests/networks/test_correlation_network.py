"""Pixel correlation: refined maps are means of the maps of similar pixels."""

import pytest
import torch
from torch.nn import functional as F

from slams_ray.networks.backbone import build_backbone
from slams_ray.networks.correlation_network import CorrelationNetwork, correlated, largest_only


def network(with_regions: bool = False) -> CorrelationNetwork:
    torch.manual_seed(0)
    return CorrelationNetwork(
        backbone_name="tiny_resnet", output_stride=8, num_classes=3, with_regions=with_regions
    ).eval()


def test_refined_maps_equal_a_loop_over_pixels_and_padding_gives_nothing() -> None:
    torch.manual_seed(0)
    sources, guide = torch.rand(1, 2, 3, 4), torch.randn(1, 5, 3, 4)
    valid = torch.ones(1, 1, 3, 4)
    valid[..., 3] = 0
    unit = F.normalize(guide, dim=1)[0].flatten(1)
    expected = torch.zeros(2, 12)
    for target in range(12):
        weights = (unit.T @ unit[:, target]).relu() * valid.flatten()
        expected[:, target] = (sources[0].flatten(1) * weights).sum(dim=1) / weights.sum()
    found = correlated(sources, guide, valid)[0].flatten(1)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_refined_maps_stay_in_the_range_of_the_maps_and_constants_stay() -> None:
    guide, valid = torch.randn(2, 5, 4, 4), torch.ones(2, 1, 4, 4)
    found = correlated(torch.full((2, 3, 4, 4), 0.7), guide, valid)
    torch.testing.assert_close(found, torch.full_like(found, 0.7), atol=1e-4, rtol=1e-4)


def test_pixels_of_one_look_get_one_value() -> None:
    guide = torch.zeros(1, 2, 1, 4)
    guide[0, 0, 0, :2] = 1
    guide[0, 1, 0, 2:] = 1
    sources = torch.tensor([[[[1.0, 0.0, 0.2, 0.4]]]])
    found = correlated(sources, guide, torch.ones(1, 1, 1, 4))
    expected = torch.tensor([[[[0.5, 0.5, 0.3, 0.3]]]])
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_only_the_highest_class_of_a_pixel_is_kept_and_the_input_is_not_changed() -> None:
    maps = torch.tensor([[[[0.2, 0.9]], [[0.7, 0.1]]]])
    before = maps.clone()
    assert torch.equal(largest_only(maps), torch.tensor([[[[0.0, 0.9]], [[0.7, 0.0]]]]))
    assert torch.equal(maps, before)


@pytest.mark.parametrize("with_regions", [False, True])
def test_maps_of_present_classes_do_not_depend_on_absent_ones(with_regions: bool) -> None:
    own, images = network(with_regions), torch.randn(1, 3, 40, 48)
    labels = torch.tensor([[1.0, 1, 0]])
    with torch.no_grad():
        before = own(images, labels)[:, :2]
        own.head.weight[2] = 9 * own.head.weight[0].abs()
        after = own(images, labels)[:, :2]
        everything = own(images)[:, :2]
    assert torch.equal(before, after)
    assert not torch.allclose(before, everything)
    assert before.min() >= 0


def test_refined_maps_give_no_gradient_to_backbone_and_head() -> None:
    own = network(with_regions=True)
    own(torch.randn(1, 3, 32, 32)).square().sum().backward()
    assert own.head.weight.grad is None
    assert all(p.grad is None for p in own.backbone.parameters())
    for layer in (own.shallow, own.deep, own.guide, own.region):
        assert layer is not None
        assert layer.weight.grad is not None
        assert layer.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("name", ["tiny_resnet", "mobilenet_v2", "resnet18"])
def test_shallow_features_lie_on_the_way_to_the_output(name: str) -> None:
    backbone = build_backbone(name, 8).eval()
    images = torch.randn(1, 3, 48, 40)
    shallow, features = backbone.with_shallow(images)
    torch.testing.assert_close(features, backbone(images))
    torch.testing.assert_close(shallow, backbone.depths(images)[-2])
