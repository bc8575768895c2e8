"""Predictors, refinements and the CRF in torch on a CUDA device: what leaves it does so once."""

from collections.abc import Callable
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from slams_ray.inference.activation_predictor import ActivationPredictor
from slams_ray.inference.precision import inference_dtype, optimize_for_inference
from slams_ray.inference.segmentation_predictor import SegmentationPredictor
from slams_ray.networks.activation_network import ActivationNetwork
from slams_ray.networks.batch_norm import fold_batch_norm
from slams_ray.networks.conditioned_network import ConditionedNetwork
from slams_ray.networks.correlation_network import CorrelationNetwork
from slams_ray.networks.edge_network import EdgeNetwork
from slams_ray.networks.segmentation_network import SegmentationNetwork
from slams_ray.refinement.maps import PixelAdaptiveRefinement, WalkRefinement

Make = Callable[..., Any]
ARCHITECTURE = {"backbone_name": "tiny_resnet", "output_stride": 8, "num_classes": 4}
SCALES = (0.5, 1.0)
IMAGES = [np.zeros((32, 48, 3), np.uint8)] * 2


@pytest.mark.parametrize("optimized", [False, True])
@pytest.mark.parametrize("kind", [ActivationNetwork, CorrelationNetwork, ConditionedNetwork])
def test_maps_of_every_network_come_in_one_copy(
    kind: Any, optimized: bool, faked_cuda: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Folding reads the weights, which fake tensors do not have.
    network = fold_batch_norm(kind(**ARCHITECTURE).eval())
    with faked_cuda() as device:
        if optimized:
            network = optimize_for_inference(network, torch.bfloat16, device)
        predictor = ActivationPredictor({"x": network}, scales=SCALES, flip=True, device=device)
        labels = [np.zeros(image.shape[:2], np.uint8) for image in IMAGES]
        copy = Mock(wraps=torch.Tensor.cpu)
        monkeypatch.setattr(torch.Tensor, "cpu", lambda tensor: copy(tensor))
        found = predictor.activate_batch(IMAGES, [[1, 3], [2]], labels)
    copy.assert_called_once()
    assert [maps["x"].shape for maps in found] == [(2, 8, 12), (1, 8, 12)]


@pytest.mark.parametrize("head", ["deeplabv2", "deeplabv3"])
def test_masks(head: str, faked_cuda: Make) -> None:
    network = SegmentationNetwork(**ARCHITECTURE, head=head).eval()
    with faked_cuda() as device:
        predictor = SegmentationPredictor(network, scales=SCALES, flip=True, device=device)
        assert predictor.predict(IMAGES[0]).shape == (32, 48)


def test_precision_of_a_device(faked_cuda: Make) -> None:
    with faked_cuda() as device:
        assert inference_dtype("auto", device) == torch.bfloat16
        assert inference_dtype("float32", device) == torch.float32


def test_edges_of_the_walk_and_pixel_adaptive_maps(faked_cuda: Make) -> None:
    network = EdgeNetwork(backbone_name="tiny_resnet", output_stride=8).eval()
    maps = np.zeros((2, 8, 12), np.uint8)
    with faked_cuda() as device:
        assert WalkRefinement(network, 8.0, 16, device).edges(IMAGES[0]).shape == (8, 12)
        assert PixelAdaptiveRefinement(2, device)(IMAGES[0], maps).shape == maps.shape
