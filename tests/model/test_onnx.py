"""The exported ONNX network equals the one in torch, at any size."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from slams_ray.data.transforms import normalise
from slams_ray.errors import ConfigError
from slams_ray.model.onnx import INPUT_NAME, ImageToProbabilities, export_onnx
from slams_ray.networks.checkpoint import load_network
from slams_ray.networks.segmentation_network import SegmentationNetwork
from slams_ray.stages import export

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
REASON = "ONNX packages are optional: pip install 'slams-ray[export]'"


def images(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)


def test_the_exported_module_is_the_networks_softmax_at_image_size() -> None:
    torch.manual_seed(0)
    network = SegmentationNetwork("tiny_resnet", 8, 2, "deeplabv2").eval()
    pixels = torch.from_numpy(images(2, 40, 56))
    with torch.no_grad():
        found = ImageToProbabilities(network)(pixels)
        logits = network(normalise(pixels))
        expected = torch.nn.functional.interpolate(logits, (40, 56), mode="bilinear").softmax(1)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_onnxruntime_gives_the_probabilities_of_torch_at_every_size(
    write_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    runtime = pytest.importorskip("onnxruntime", reason=REASON)
    for package in ("onnx", "onnxscript"):
        pytest.importorskip(package, reason=REASON)
    path = write_checkpoint()
    assert export.run_onnx(str(path), str(tmp_path / "out")) == str(tmp_path / "out/model.onnx")
    session = runtime.InferenceSession(str(tmp_path / "out" / "model.onnx"))
    properties = session.get_modelmeta().custom_metadata_map
    assert properties["class_names"] == '["background", "cat", "dog"]'
    assert (tmp_path / "out" / "class_names.txt").read_text() == "background\ncat\ndog\n"
    network = load_network(path.read_bytes(), str(path), "segmentation_network")
    module = ImageToProbabilities(network).eval()
    for shape in ((1, 64, 80), (2, 97, 131), (1, 33, 200)):
        pixels = images(*shape)
        (found,) = session.run(None, {INPUT_NAME: pixels})
        with torch.no_grad():
            expected = module(torch.from_numpy(pixels)).numpy()
        np.testing.assert_allclose(found, expected, atol=1e-4)


def test_without_the_packages_the_message_names_the_extra(
    write_checkpoint: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ConfigError, match=r"pip install .*\[export\]"):
        export_onnx(str(write_checkpoint()), str(tmp_path / "model.onnx"))
