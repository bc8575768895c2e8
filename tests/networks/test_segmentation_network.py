import pytest
import torch

from slams_ray.errors import ConfigError
from slams_ray.networks.segmentation_network import (
    DEEPLABV2_RATES,
    DeepLabV2Head,
    SegmentationNetwork,
)


@pytest.mark.parametrize("head", ["deeplabv2", "deeplabv3"])
def test_logits_have_one_channel_per_category_at_the_output_stride(head: str) -> None:
    network = SegmentationNetwork("tiny_resnet", 8, 4, head).eval()
    with torch.inference_mode():
        assert network(torch.zeros((2, 3, 32, 48))).shape == (2, 5, 4, 6)


def test_the_deeplabv2_head_is_the_sum_of_its_dilated_branches() -> None:
    torch.manual_seed(0)
    head = DeepLabV2Head(6, 3)
    features = torch.randn((1, 6, 30, 30))
    with torch.inference_mode():
        expected = sum(
            torch.nn.functional.conv2d(features, b.weight, b.bias, padding=r, dilation=r)
            for b, r in zip(head.branches, DEEPLABV2_RATES, strict=True)
        )
        torch.testing.assert_close(head(features), expected)


def test_an_unknown_head_raises_and_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"unet.*deeplabv2, deeplabv3"):
        SegmentationNetwork("tiny_resnet", 8, 4, "unet")


def test_inference_in_eval_mode_is_deterministic() -> None:
    network = SegmentationNetwork("tiny_resnet", 8, 2, "deeplabv3").eval()
    images = torch.randn((1, 3, 32, 32))
    with torch.inference_mode():
        assert torch.equal(network(images), network(images))
