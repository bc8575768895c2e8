"""The precision of the settings is what the networks of both inference stages compute in."""

from pathlib import Path

import pytest
import torch

from slams_ray.config import ActivationInferenceConfig, ComputeConfig, InferenceConfig
from slams_ray.inference.precision import inference_dtype
from slams_ray.model.predictor import make_predictor
from slams_ray.networks.activation_network import ActivationNetwork
from slams_ray.networks.checkpoint import dump_network
from slams_ray.networks.segmentation_network import SegmentationNetwork
from slams_ray.runtime.cluster import ask_each_node
from slams_ray.stages.precision import resolved
from slams_ray.workers import inference

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
    settings = inference.MapSettings(
        checkpoints={"cam": str(path), "slams": str(path)},
        max_logits={},
        inference=config,
        class_names=NAMES,
    )
    mapper = inference.make_mapper(settings)
    for network in mapper.predictor.networks.values():
        assert dtypes(network) == {expected}


@PRECISIONS
def test_of_evaluation(tmp_path: Path, precision: str, expected: torch.dtype) -> None:
    path = tmp_path / "model.pt"
    architecture = ARCHITECTURE | {"head": "deeplabv2"}
    path.write_bytes(dump_network(SegmentationNetwork(**architecture), architecture, NAMES))
    config = InferenceConfig(precision=precision)
    predictor = make_predictor(str(path), config, NAMES, "cpu")
    assert dtypes(predictor.network) == {expected}


@pytest.mark.parametrize(
    ("machines", "expected"),
    [(["bfloat16", "bfloat16"], "bfloat16"), (["bfloat16", "float32"], "float32")],
)
def test_auto_is_one_precision_for_all_machines(
    machines: list[str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("slams_ray.stages.precision.ask_each_node", lambda *_: machines)
    assert resolved(InferenceConfig(), ComputeConfig()).precision == expected
    assert resolved(InferenceConfig(precision="float32"), ComputeConfig()).precision == "float32"


def test_auto_is_what_this_machine_multiplies_where_it_is_alone() -> None:
    found = resolved(ActivationInferenceConfig(), ComputeConfig(device="cpu"))
    alone = inference_dtype("auto", torch.device("cpu"))
    assert f"torch.{found.precision}" == str(alone)


@pytest.mark.ray
def test_every_node_of_a_cluster_is_asked(ray_cluster: None) -> None:
    assert ask_each_node(lambda device: f"on {device}", "auto") == ["on cpu"]
