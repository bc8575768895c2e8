"""Exports the segmentation network as ONNX, with any image size."""

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from slams_ray import storage
from slams_ray.data.transforms import IMAGENET_MEAN, IMAGENET_STD
from slams_ray.errors import ConfigError, how_to_install
from slams_ray.model.source import find_model
from slams_ray.networks.checkpoint import load_network, network_class_names

INPUT_NAME, OUTPUT_NAME = "images", "probabilities"


class ImageToProbabilities(nn.Module):
    """Normalisation, network, enlargement and softmax, at one scale and without mirroring."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN))
        self.register_buffer("std", torch.tensor(IMAGENET_STD))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Maps (B, H, W, 3) uint8 RGB images to (B, K, H, W) float32 probabilities."""
        # Not `normalise`: its cache would keep the tracer's tensors.
        logits = self.network(((images / 255 - self.mean) / self.std).permute(0, 3, 1, 2))
        size = images.shape[1:3]
        full = nn.functional.interpolate(logits, size=size, mode="bilinear", align_corners=False)
        return full.softmax(dim=1)


def export_onnx(model: str, path: str) -> list[str]:
    """Writes an ONNX file that maps images to probabilities as `ImageToProbabilities`.

    Its metadata has class_names, a JSON list by class index.

    Args:
        model: see `find_model`.

    Returns:
        class names, background first.

    Raises:
        ConfigError: the packages of the extra `export` are missing.
    """
    source = find_model(model).path
    data = storage.read_bytes(source)
    names = network_class_names(data, source)
    network = load_network(data, source, "segmentation_network")
    storage.write_bytes(path, onnx_bytes(ImageToProbabilities(network).eval(), names))
    return names


def onnx_bytes(module: ImageToProbabilities, class_names: Sequence[str]) -> bytes:
    """Serialises the module with dynamic batch size, height and width."""
    try:
        import onnx
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f"ONNX export needs the package {error.name}: {how_to_install('export')}"
        ) from error
    example = torch.zeros((2, 96, 128, 3), dtype=torch.uint8)
    free = torch.export.Dim.DYNAMIC
    with tempfile.TemporaryDirectory() as directory:
        local = Path(directory) / "model.onnx"
        torch.onnx.export(
            module,
            (example,),
            str(local),
            input_names=[INPUT_NAME],
            output_names=[OUTPUT_NAME],
            dynamic_shapes=({0: free, 1: free, 2: free},),
            dynamo=True,
            external_data=False,
            verbose=False,
        )
        made = onnx.load(str(local))
        onnx.helper.set_model_props(made, {"class_names": json.dumps(list(class_names))})
        onnx.checker.check_model(made)
        return bytes(made.SerializeToString())
