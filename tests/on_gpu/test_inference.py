"""Maps, labels and refinements of a GPU are those of a CPU."""

from typing import Any

import numpy as np
import pytest
import torch

from slams_ray.inference.activation_predictor import ActivationPredictor
from slams_ray.inference.precision import inference_dtype, optimize_for_inference
from slams_ray.inference.segmentation_predictor import SegmentationPredictor
from slams_ray.networks.activation_network import ActivationNetwork
from slams_ray.networks.conditioned_network import ConditionedNetwork
from slams_ray.networks.correlation_network import CorrelationNetwork
from slams_ray.networks.edge_network import EdgeNetwork
from slams_ray.networks.segmentation_network import SegmentationNetwork
from slams_ray.refinement.crf.kernels import CrfKernels
from slams_ray.refinement.crf.mean_field_torch import TorchCrf
from slams_ray.refinement.maps import PixelAdaptiveRefinement, WalkRefinement

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine"),
]
ARCHITECTURE = {"backbone_name": "tiny_resnet", "output_stride": 8, "num_classes": 4}
SCALES = (0.5, 1.0)
LABELS = [[1, 3], [2]]
DEVICES = ("cpu", "cuda")


@pytest.fixture
def images() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (32, 48, 3)).astype(np.uint8) for _ in LABELS]


@pytest.mark.parametrize("kind", [ActivationNetwork, CorrelationNetwork, ConditionedNetwork])
@pytest.mark.parametrize(("precision", "most_levels"), [("float32", 1), ("auto", 26)])
def test_maps(kind: Any, precision: str, most_levels: int, images: list[np.ndarray]) -> None:
    found = {}
    for name in DEVICES:
        device = torch.device(name)
        torch.manual_seed(0)
        network = kind(**ARCHITECTURE).eval()
        dtype = inference_dtype(precision if name == "cuda" else "float32", device)
        network = optimize_for_inference(network, dtype, device)
        predictor = ActivationPredictor({"x": network}, scales=SCALES, flip=True, device=device)
        pixel_labels = [np.zeros(image.shape[:2], np.uint8) for image in images]
        found[name] = predictor.activate_batch(images, LABELS, pixel_labels)
    for cpu, gpu in zip(found["cpu"], found["cuda"], strict=True):
        difference = np.abs(cpu["x"].astype(int) - gpu["x"])
        assert difference.max() <= most_levels
        assert cpu["x"].any()


@pytest.mark.parametrize("head", ["deeplabv2", "deeplabv3"])
def test_masks_and_their_confidence(head: str, images: list[np.ndarray]) -> None:
    torch.manual_seed(0)
    network = SegmentationNetwork(**ARCHITECTURE, head=head).eval()
    found = [
        SegmentationPredictor(
            network, scales=SCALES, flip=True, device=torch.device(name)
        ).predict_with_confidence(images[0])
        for name in DEVICES
    ]
    np.testing.assert_allclose(found[0][1], found[1][1], atol=1e-3)
    # Equal but for ties of a random network.
    assert (found[0][0] == found[1][0]).mean() > 0.99


def test_edges_of_the_walk_and_pixel_adaptive_maps(images: list[np.ndarray]) -> None:
    torch.manual_seed(0)
    network = EdgeNetwork(backbone_name="tiny_resnet", output_stride=8).eval()
    edges = [
        WalkRefinement(network, 8.0, 16, torch.device(name)).edges(images[0]) for name in DEVICES
    ]
    np.testing.assert_allclose(edges[0], edges[1], atol=1e-3)
    maps = np.random.default_rng(1).integers(0, 256, (2, 8, 12)).astype(np.uint8)
    refined = [
        PixelAdaptiveRefinement(4, torch.device(name))(images[0], maps).astype(int)
        for name in DEVICES
    ]
    assert np.abs(refined[0] - refined[1]).max() <= 1


@pytest.mark.parametrize("num_labels", [2, 5])
def test_the_crf(num_labels: int) -> None:
    rng = np.random.default_rng(num_labels)
    image = rng.integers(0, 256, (60, 80, 3)).astype(np.uint8)
    unary = rng.uniform(0, 4, (num_labels, 60, 80)).astype(np.float32)
    kernels = CrfKernels(
        gaussian_sxy_px=3.0,
        gaussian_compat=3.0,
        bilateral_sxy_px=50.0,
        bilateral_srgb=20.0,
        bilateral_compat=10.0,
    )
    crfs = [TorchCrf(image, num_labels, kernels, name) for name in ("cpu", "cuda", "cuda")]
    posteriors = [crf.infer(unary, 10) for crf in crfs]
    labels = next(crfs[1].label_all([unary], 10))
    np.testing.assert_array_equal(labels, posteriors[1].argmax(axis=0))
    np.testing.assert_allclose(posteriors[1], posteriors[0], atol=1e-3)
    np.testing.assert_array_equal(posteriors[2], posteriors[1])
