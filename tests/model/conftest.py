"""A tiny trained-like network, and photographs of three kinds."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from slams_ray.config import InferenceConfig
from slams_ray.networks.checkpoint import dump_network
from slams_ray.networks.segmentation_network import SegmentationNetwork

NAMES = ("background", "cat", "dog")
INFERENCE = InferenceConfig(scales=(0.5, 1.0), flip=True, precision="float32")


@pytest.fixture
def write_checkpoint(tmp_path: Path) -> Callable[..., Path]:
    """Writes a checkpoint whose argmax is not constant, and returns its path."""

    def write(max_side_px: int | None = None, inference: InferenceConfig = INFERENCE) -> Path:
        architecture = {
            "backbone_name": "tiny_resnet",
            "output_stride": 8,
            "num_classes": len(NAMES) - 1,
            "head": "deeplabv2",
        }
        torch.manual_seed(0)
        network = SegmentationNetwork(**architecture)
        with torch.no_grad():
            # At random weights one class would win everywhere.
            network.head.branches[0].weight.normal_(std=1.0)
        settings = asdict(inference) | {"max_side_px": max_side_px}
        path = tmp_path / "model.pt"
        path.write_bytes(dump_network(network, architecture, NAMES, settings))
        return path

    return write


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """A directory with a large, a small and a turned photograph."""
    root = tmp_path / "photographs"
    root.mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6
    rng = np.random.default_rng(0)
    for name, size, options in (
        ("large", (90, 120), {}),
        ("small", (40, 30), {}),
        ("turned", (64, 100), {"exif": exif}),
    ):
        coarse = rng.integers(0, 256, (6, 8, 3), np.uint8)
        smooth = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)
        smooth.save(root / f"{name}.jpg", quality=95, **options)
    return root
