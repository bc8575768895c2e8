import io
from typing import Any

import pytest
import torch
from torch import nn

from slams_ray.errors import ArtifactError
from slams_ray.networks.checkpoint import (
    NETWORKS,
    build_network,
    dump_network,
    load_network,
    network_class_names,
)

CLASS_NAMES = ("background", "cat", "dog")
BASE = {"backbone_name": "tiny_resnet", "output_stride": 8, "num_classes": 2}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "semantic_encoder": BASE | {"embedding_dim": 4},
    "correlation_network": {
        "backbone_name": "tiny_resnet",
        "output_stride": 8,
        "num_classes": 3,
        "with_regions": True,
    },
    "conditioned_network": BASE,
    "activation_network": BASE,
    "segmentation_network": BASE | {"head": "deeplabv2"},
    "edge_network": {"backbone_name": "tiny_resnet", "output_stride": 8},
    "text_network": BASE | {"texts": ["a cat", "a dog", "a tree"], "embedding_dim": 4},
    "clip_map_network": {
        "texts": ["a cat", "a dog", "a tree"],
        "num_classes": 2,
        "box_share": 0.4,
        "attention_blocks": 2,
        "embedding_dim": 4,
        "width": 64,
        "layers": 2,
        "patch_px": 8,
        "image_px": 32,
    },
    "token_network": {
        "num_classes": 2,
        "map_blocks": 1,
        "width": 64,
        "depth": 2,
        "patch_px": 8,
        "image_px": 32,
    },
}
LIBRARIES = {"clip_map_network": ("open_clip", "text"), "token_network": ("timm", "vit")}
"""Kind of network -> the optional library that builds it, and its extra."""


def checkpoint(kind: str = "activation_network") -> tuple[nn.Module, bytes]:
    if kind in LIBRARIES:
        library, extra = LIBRARIES[kind]
        pytest.importorskip(library, reason=f"the extra {extra} ({library}) is not installed")
    network = build_network(kind, ARCHITECTURES[kind]).eval()
    return network, dump_network(network, ARCHITECTURES[kind], CLASS_NAMES)


@pytest.mark.parametrize("kind", NETWORKS)
def test_a_network_survives_the_round_trip(kind: str) -> None:
    network, data = checkpoint(kind)
    loaded = load_network(data, "memory", kind, CLASS_NAMES)
    images = torch.randn((1, 3, 32, 32))
    assert type(loaded) is NETWORKS[kind]
    assert not loaded.training
    assert torch.equal(loaded(images), network(images))


@pytest.mark.parametrize("kind", sorted(NETWORKS.keys() - LIBRARIES.keys()))
def test_a_network_without_dilation_stays_one(kind: str) -> None:
    settings = ARCHITECTURES[kind] | {"backbone_name": "resnet18", "dilate": False}
    data = dump_network(build_network(kind, settings), settings, CLASS_NAMES)
    loaded = load_network(data, "memory", kind)
    modules = loaded.get_submodule("backbone").modules()
    assert {m.dilation for m in modules if isinstance(m, nn.Conv2d)} == {(1, 1)}


def test_the_class_names_are_read_from_the_file() -> None:
    assert network_class_names(checkpoint()[1], "memory") == list(CLASS_NAMES)


def test_any_class_names_are_accepted_when_none_are_expected() -> None:
    assert load_network(checkpoint()[1], "memory", "activation_network")


def test_another_kind_of_network_raises() -> None:
    with pytest.raises(ArtifactError, match="is a activation_network, expected a semantic"):
        load_network(checkpoint()[1], "memory", "semantic_encoder")


@pytest.mark.parametrize(
    "class_names", [("background", "cat"), ("background", "dog", "cat"), (*CLASS_NAMES, "cow")]
)
def test_other_class_names_or_another_order_raise(class_names: tuple[str, ...]) -> None:
    with pytest.raises(ArtifactError, match=r"trained for 3 classes \(background, cat, dog\)"):
        load_network(checkpoint()[1], "memory", "activation_network", class_names)


@pytest.mark.parametrize("kept", [0, 10, 1000, -1000, -1])
def test_a_truncated_file_raises_and_names_itself(kept: int) -> None:
    with pytest.raises(ArtifactError, match=r"encoder\.pt.*truncated"):
        load_network(checkpoint()[1][:kept], "encoder.pt", "activation_network")


def test_garbage_raises() -> None:
    with pytest.raises(ArtifactError, match="not a readable checkpoint"):
        load_network(b"not a checkpoint" * 100, "memory", "activation_network")


def test_a_file_of_another_program_raises() -> None:
    buffer = io.BytesIO()
    torch.save({"state_dict": {}}, buffer)
    with pytest.raises(ArtifactError, match="expected the keys"):
        load_network(buffer.getvalue(), "memory", "activation_network")


def test_a_pickled_object_is_refused() -> None:
    buffer = io.BytesIO()
    torch.save(nn.Linear(1, 1), buffer)
    with pytest.raises(ArtifactError, match="not a readable checkpoint"):
        load_network(buffer.getvalue(), "memory", "activation_network")
