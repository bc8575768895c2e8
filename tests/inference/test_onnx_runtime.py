"""ONNX Runtime computes what torch does, at any size and number of images."""

import importlib.util

import numpy as np
import pytest
import torch

from slams_ray.errors import ConfigError, how_to_install
from slams_ray.inference.activation_predictor import ActivationPredictor
from slams_ray.inference.onnx_runtime import check_onnxruntime, with_onnxruntime
from slams_ray.inference.precision import optimize_for_inference
from slams_ray.networks.activation_network import ActivationNetwork
from slams_ray.networks.conditioned_network import ConditionedNetwork

CPU = torch.device("cpu")
ARCHITECTURE = {"backbone_name": "tiny_resnet", "output_stride": 8, "num_classes": 4}


def optimized() -> ActivationNetwork:
    torch.manual_seed(0)
    network = ActivationNetwork(**ARCHITECTURE)  # type: ignore[arg-type]
    return optimize_for_inference(network, torch.float32, CPU)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_maps_are_those_of_torch_at_every_size() -> None:
    for package in ("onnx", "onnxruntime"):
        pytest.importorskip(package, reason=f"optional: {how_to_install('export')}")
    rng = np.random.default_rng(1)
    networks = {"torch": optimized(), "onnxruntime": with_onnxruntime(optimized())}
    predictor = ActivationPredictor(networks, scales=(0.5, 1.0), flip=True, device=CPU)
    for height, width in ((40, 56), (33, 90)):
        image = rng.integers(0, 256, (height, width, 3), np.uint8)
        (found,) = predictor.activate_batch([image], [[1, 4]])
        assert found["torch"].max() > 200
        difference = found["onnxruntime"].astype(int) - found["torch"]
        assert np.abs(difference).max() <= 1
        assert (difference != 0).mean() < 0.01


def test_a_network_that_takes_labels_stays_in_torch() -> None:
    network = ConditionedNetwork(**ARCHITECTURE)  # type: ignore[arg-type]
    assert with_onnxruntime(network) is network


def test_a_missing_package_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"package onnx, .* pip install -c .*\[export\]'"):
        check_onnxruntime()
