"""Weights of a network: from a file, or from torchvision."""

import io
from collections.abc import Mapping

import torch
from torch import nn

from slams_ray import storage
from slams_ray.errors import ConfigError
from slams_ray.networks.backbone import Backbone

NO_WEIGHTS = "none"


def load_backbone_weights(backbone: Backbone, weights: str) -> None:
    """Loads weights in place.

    Args:
        weights: "none"; a file (path or URI) with a state dict in torchvision's keys, whose
            classifier is ignored; or a torchvision enum such as "ResNet50_Weights.IMAGENET1K_V1",
            which is downloaded on first use.

    Raises:
        ConfigError: the file cannot be read or downloaded, or is for another architecture.
    """
    if weights == NO_WEIGHTS:
        return
    if "_Weights." in weights:
        state = _download(weights)
    else:
        state = read_state_dict(weights, "backbone.weights")
    own = backbone.body.state_dict()
    wanted = {key: value for key, value in state.items() if key in own}
    missing = sorted(set(own) - set(wanted))
    reshaped = sorted(k for k, v in wanted.items() if v.shape != own[k].shape)
    if missing or reshaped:
        raise ConfigError(
            f"backbone.weights {weights} are for another architecture: {len(missing)} of "
            f"{len(own)} tensors are missing (first: {missing[:1]}), {len(reshaped)} have another "
            f"shape (first: {reshaped[:1]}). "
            "Use a state dict of the configured backbone, or change backbone.name"
        )
    backbone.body.load_state_dict(wanted)


def _download(weights: str) -> Mapping[str, torch.Tensor]:
    # Imported here, because a process waits 1.5 s for it, and files need no torchvision.
    from torchvision.models import get_weight

    try:
        found = get_weight(weights)
    except (ValueError, KeyError, AttributeError) as error:
        raise ConfigError(
            f"backbone.weights is {weights!r}, which torchvision does not have: expected a name "
            "such as ResNet50_Weights.IMAGENET1K_V1, or a file"
        ) from error
    try:
        return found.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except OSError as error:
        raise ConfigError(
            f"backbone.weights {weights} cannot be downloaded: {error}. Give a file with this "
            "state dict: --classifier.backbone.weights FILE --encoder.backbone.weights FILE "
            "--segmentation.backbone.weights FILE"
        ) from error


def read_state_dict(path: str, setting: str) -> dict[str, torch.Tensor]:
    """Reads a file (path or URI) that holds a state dict, alone or as the only entry `model`.

    Args:
        setting: name of the setting that has the path, for messages.

    Raises:
        ConfigError: there is no such file, or it holds something else.
    """
    if not storage.exists(path):
        raise ConfigError(f"{setting} names {path}, which is not a file")
    try:
        data = io.BytesIO(storage.read_bytes(path))
        state = torch.load(data, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ConfigError(
            f"{setting} {path} cannot be read as a state dict, which torch.save writes. Save the "
            f"state_dict() of a TorchScript archive as such a file first: {error}"
        ) from error
    if isinstance(state, dict) and state.keys() == {"model"} and isinstance(state["model"], dict):
        state = state["model"]
    if not isinstance(state, dict) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise ConfigError(
            f"{setting} {path} contains {type(state).__name__}, expected a state dict"
        )
    return state


def load_exactly(network: nn.Module, state: Mapping[str, torch.Tensor], source: str) -> None:
    """Loads a state dict of the very same architecture.

    Raises:
        ConfigError: keys or shapes differ.
    """
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise ConfigError(f"{source} is for another architecture: {error}") from error
