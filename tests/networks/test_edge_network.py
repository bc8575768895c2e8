import pytest
import torch

from slams_ray.inference.precision import optimize_for_inference
from slams_ray.networks.backbone import BACKBONES
from slams_ray.networks.edge_network import EdgeNetwork, edge_probability


def build(name: str = "tiny_resnet", output_stride: int = 8) -> EdgeNetwork:
    torch.manual_seed(0)
    return EdgeNetwork(name, output_stride)


def random_images(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", BACKBONES)
def test_logits_lie_on_the_grid_of_stride_4(name: str) -> None:
    with torch.device("meta"):
        network = EdgeNetwork(name, 8)
        assert network(torch.empty(2, 3, 33, 47)).shape == (2, 9, 12)


def test_the_smallest_image_has_one_cell() -> None:
    assert build().eval()(random_images(1, 3, 3, 4)).shape == (1, 1, 1)


def test_only_branches_and_head_learn() -> None:
    network = build().train()
    before = {k: v.clone() for k, v in network.backbone.state_dict().items()}
    network(random_images(2, 3, 32, 32)).square().sum().backward()
    learning = {name for name, p in network.named_parameters() if p.requires_grad}
    assert learning == {n for n, _ in network.named_parameters() if not n.startswith("backbone.")}
    assert all(p.grad is not None for n, p in network.named_parameters() if n in learning)
    assert all(p.grad is None for p in network.backbone.parameters())
    after = network.backbone.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())
    assert not network.backbone.training
    assert network.head.training


def test_a_resnet_50_learns_about_an_eighth_of_a_million_weights() -> None:
    with torch.device("meta"):
        network = EdgeNetwork("resnet50", 16)
    learnt = sum(p.numel() for p in network.parameters() if p.requires_grad)
    assert 120_000 < learnt < 140_000


@torch.inference_mode()
def test_the_probability_is_that_of_both_mirrors() -> None:
    network, images = build().eval(), random_images(2, 3, 30, 36)
    found = edge_probability(network, images)
    assert found.shape == (2, 8, 9)
    assert found.dtype == torch.float32
    assert 0 <= found.min() <= found.max() <= 1
    torch.testing.assert_close(edge_probability(network, images.flip(-1)), found.flip(-1))


@torch.inference_mode()
def test_an_image_has_the_edges_it_has_alone() -> None:
    network, images = build().eval(), random_images(3, 3, 24, 28)
    together = edge_probability(network, images)
    torch.testing.assert_close(edge_probability(network, images[1:2]), together[1:2])


@pytest.mark.parametrize(("name", "output_stride"), [("tiny_resnet", 4), ("resnet18", 16)])
@torch.inference_mode()
def test_an_optimized_network_finds_the_same_edges(name: str, output_stride: int) -> None:
    network, images = build(name, output_stride).eval(), random_images(1, 3, 40, 32)
    expected = edge_probability(network, images)
    fast = optimize_for_inference(network, torch.float32, torch.device("cpu"))
    torch.testing.assert_close(edge_probability(fast, images), expected, atol=1e-4, rtol=1e-4)
