"""The walk as a process of the cluster builds it."""

from pathlib import Path

import numpy as np
import torch
from torch import nn

from slams_ray import storage
from slams_ray.config import WalkConfig
from slams_ray.networks.checkpoint import dump_network
from slams_ray.networks.edge_network import EdgeNetwork
from slams_ray.refinement.maps import WalkRefinement
from slams_ray.workers.walk import make_walk

CLASS_NAMES = ("background", "cat")


def test_a_walk_is_built_without_batch_norm_and_finds_the_same_edges(tmp_path: Path) -> None:
    torch.manual_seed(0)
    architecture = {"backbone_name": "mobilenet_v2", "output_stride": 16}
    network = EdgeNetwork("mobilenet_v2", 16)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2.0)
    path = str(tmp_path / "model.pt")
    storage.write_bytes(path, dump_network(network, architecture, CLASS_NAMES))
    config = WalkConfig(beta=8, num_steps=16)
    built = make_walk(path, config, CLASS_NAMES, "cpu")
    trained = WalkRefinement(network.eval(), 8, 16, torch.device("cpu"))
    assert not any(isinstance(module, nn.BatchNorm2d) for module in built.network.modules())
    image = np.random.default_rng(0).integers(0, 256, (61, 83, 3), np.uint8)
    np.testing.assert_allclose(built.edges(image), trained.edges(image), atol=1e-5)
