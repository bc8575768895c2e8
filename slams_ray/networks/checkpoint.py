"""Checkpoint of a trained network: architecture, classes, inference settings and weights.

A checkpoint loads without unpickling arbitrary objects.
"""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from slams_ray.errors import ArtifactError
from slams_ray.networks.activation_network import ActivationNetwork
from slams_ray.networks.clip_map_network import ClipMapNetwork
from slams_ray.networks.conditioned_network import ConditionedNetwork
from slams_ray.networks.correlation_network import CorrelationNetwork
from slams_ray.networks.edge_network import EdgeNetwork
from slams_ray.networks.segmentation_network import SegmentationNetwork
from slams_ray.networks.semantic_encoder import SemanticEncoder
from slams_ray.networks.text_network import TextNetwork
from slams_ray.networks.token_network import TokenNetwork

NETWORKS: dict[str, type[nn.Module]] = {
    "edge_network": EdgeNetwork,
    "semantic_encoder": SemanticEncoder,
    "activation_network": ActivationNetwork,
    "correlation_network": CorrelationNetwork,
    "conditioned_network": ConditionedNetwork,
    "text_network": TextNetwork,
    "clip_map_network": ClipMapNetwork,
    "token_network": TokenNetwork,
    "segmentation_network": SegmentationNetwork,
}
MAP_NETWORKS = (
    "activation_network",
    "correlation_network",
    "conditioned_network",
    "text_network",
    "clip_map_network",
    "token_network",
)
"""Kinds of networks that make the maps of a system. One whose attribute `needs_labels` is true
takes the (B, C) multi-hot labels after the images. One whose `native_size_only` is true sees images
at scale 1 alone, and one whose `mirrored` is false no mirror images."""


def build_network(kind: str, architecture: dict[str, Any]) -> nn.Module:
    """Builds a network with random weights; `architecture` has the arguments of its class."""
    return NETWORKS[kind](**architecture)


def dump_network(
    network: nn.Module,
    architecture: dict[str, Any],
    class_names: Sequence[str],
    inference: Mapping[str, Any] | None = None,
) -> bytes:
    """Serialises a network of one of the `NETWORKS` classes.

    Args:
        inference: inference settings as plain values; None for a network that does not predict.
    """
    kind = next(name for name, cls in NETWORKS.items() if type(network) is cls)
    buffer = io.BytesIO()
    torch.save(
        {
            "kind": kind,
            "architecture": dict(architecture),
            "class_names": list(class_names),
            "inference": None if inference is None else dict(inference),
            "state_dict": {k: v.detach().cpu() for k, v in network.state_dict().items()},
        },
        buffer,
    )
    return buffer.getvalue()


def load_network(
    data: bytes,
    source: str,
    kind: str | tuple[str, ...],
    class_names: Sequence[str] | None = None,
) -> nn.Module:
    """Rebuilds the network of `dump_network`, in eval mode on the CPU.

    Args:
        data: bytes of the checkpoint.
        source: path of the checkpoint, for messages.
        kind: expected key of `NETWORKS`, or several of which one is expected.
        class_names: expected class names, background first; None accepts any.

    Raises:
        ArtifactError: the file is truncated, or its kind of network or its classes differ.
    """
    content = _load_content(data, source)
    kinds = (kind,) if isinstance(kind, str) else kind
    if content["kind"] not in kinds:
        raise ArtifactError(f"{source} is a {content['kind']}, expected a {' or '.join(kinds)}")
    found = content["class_names"]
    if class_names is not None and list(class_names) != found:
        raise ArtifactError(
            f"{source} was trained for {len(found)} classes ({', '.join(found)}), but the data has "
            f"{len(class_names)} ({', '.join(class_names)}): train it again on this data"
        )
    network = build_network(content["kind"], content["architecture"])
    network.load_state_dict(content["state_dict"])
    return network.eval()


def network_class_names(data: bytes, source: str) -> list[str]:
    """Returns the class names of a checkpoint, background first."""
    return list(_load_content(data, source)["class_names"])


def inference_settings(data: bytes, source: str) -> dict[str, Any]:
    """Returns the inference settings of a checkpoint, as given to `dump_network`.

    Raises:
        ArtifactError: the checkpoint has none.
    """
    settings = _load_content(data, source).get("inference")
    if settings is None:
        raise ArtifactError(
            f"{source} has no inference settings: set all of --scales, --flip, --max-side-px and "
            "--precision, or use a checkpoint of train_segmentation"
        )
    return dict(settings)


def _load_content(data: bytes, source: str) -> dict[str, Any]:
    try:
        content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:
        raise ArtifactError(
            f"{source} ({len(data)} bytes) is not a readable checkpoint and may be truncated: "
            f"{error}"
        ) from error
    expected = {"kind", "architecture", "class_names", "state_dict"}
    if not isinstance(content, dict) or not expected <= content.keys():
        raise ArtifactError(f"{source} is not a slams_ray checkpoint: expected the keys {expected}")
    return content
