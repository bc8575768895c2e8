"""A tiny network with weights that give more than one class, and photographs for it."""

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from slams_ray.config import InferenceConfig
from slams_ray.networks.checkpoint import dump_network
from slams_ray.networks.segmentation_network import SegmentationNetwork

NAMES = ("a.png", "deep/b.png", "deep/c.png", "d.png", "e.png")


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "model.pt", seed=0)


@pytest.fixture
def other_checkpoint(tmp_path: Path) -> Path:
    """A network of other weights."""
    return write_checkpoint(tmp_path / "other.pt", seed=1)


def write_checkpoint(path: Path, seed: int) -> Path:
    architecture = {
        "backbone_name": "tiny_resnet",
        "output_stride": 8,
        "num_classes": 2,
        "head": "deeplabv2",
    }
    torch.manual_seed(seed)
    network = SegmentationNetwork(**architecture)
    torch.nn.init.normal_(network.head.branches[0].weight)
    settings = asdict(InferenceConfig(scales=(1.0,), flip=False)) | {"max_side_px": None}
    path.write_bytes(dump_network(network, architecture, ("background", "a", "b"), settings))
    return path


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """Five photographs in two directories; d.png is truncated."""
    root = tmp_path / "photographs"
    (root / "deep").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in NAMES:
        pixels = rng.integers(0, 256, (4, 5, 3), np.uint8)
        Image.fromarray(pixels).resize((50, 40), Image.Resampling.BICUBIC).save(root / name)
    (root / "d.png").write_bytes((root / "d.png").read_bytes()[:200])
    return root
