"""The precision of the settings is what the networks of both inference stages compute in."""

from pathlib import Path

import pytest
import torch

from slams_ray.config import ActivationInferenceConfig, InferenceConfig
from slams_ray.mappers.infer import CAM, SLAMS
from slams_ray.models.activation_network import ActivationNetwork
from slams_ray.models.checkpoint import dump_network
from slams_ray.models.segmentation_network import SegmentationNetwork
from slams_ray.stages import evaluate, infer_activation

NAMES = ("background", "cat", "dog")
ARCHITECTURE = {"backbone_name": "tiny_resnet", "output_stride": 8, "num_classes": 2}
PRECISIONS = pytest.mark.parametrize(
    ("precision", "expected"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)]
)


def dtypes(network: torch.nn.Module) -> set[torch.dtype]:
    return {parameter.dtype for parameter in network.parameters()}


@PRECISIONS
def test_of_activation_inference(tmp_path: Path, precision: str, expected: torch.dtype) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(dump_network(ActivationNetwork(**ARCHITECTURE), ARCHITECTURE, NAMES))
    config = ActivationInferenceConfig(precision=precision)
    mapper = infer_activation.make_mapper({CAM: str(path), SLAMS: str(path)}, config, NAMES)
    for network in mapper.predictor.networks.values():
        assert dtypes(network) == {expected}


@PRECISIONS
def test_of_evaluation(tmp_path: Path, precision: str, expected: torch.dtype) -> None:
    path = tmp_path / "model.pt"
    architecture = ARCHITECTURE | {"head": "deeplabv2"}
    path.write_bytes(dump_network(SegmentationNetwork(**architecture), architecture, NAMES))
    config = InferenceConfig(precision=precision)
    predictor = evaluate.make_predictor(str(path), config, NAMES, "cpu")
    assert dtypes(predictor.network) == {expected}
