"""Finds a checkpoint with the settings by which its network predicts."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

from slams_ray import storage
from slams_ray.config import InferenceConfig
from slams_ray.config.checks import check
from slams_ray.errors import ArtifactError, ConfigError
from slams_ray.model.source import SETTINGS, find_model
from slams_ray.networks.checkpoint import inference_settings

MIN_SIDE_PX = 32
"""As data.max_side_px."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A checkpoint and the settings with which its network predicts.

    Attributes:
        settings: a value for each of `SETTINGS`.
    """

    path: str
    data: bytes
    settings: Mapping[str, Any]


def find_checkpoint(model: str | os.PathLike[str], changes: Mapping[str, Any]) -> Checkpoint:
    """Finds a checkpoint and its settings.

    Args:
        model: see `find_model`.
        changes: values for any of `SETTINGS`; None keeps a setting. The others are those of the
            evaluation, or those in the checkpoint. A network that was scored in bfloat16 has the
            precision "auto": float32 on devices that would emulate bfloat16.

    Raises:
        ArtifactError: there is no such model, its file is gone, or it has no settings.
        ConfigError: a setting is unknown, the longest side is too small, or scales are no numbers.
    """
    if unknown := changes.keys() - set(SETTINGS):
        raise ConfigError(
            f"unknown settings {', '.join(sorted(unknown))}: expected some of {', '.join(SETTINGS)}"
        )
    _check_changes(changes)
    found = find_model(os.fspath(model))
    data = _read(found.path)
    asked = {name: value for name, value in changes.items() if value is not None}
    settings = dict(found.scored_with or {})
    if not settings and asked.keys() < set(SETTINGS):
        settings = inference_settings(data, found.path)
    # Emulated bfloat16 took 18 times as long as float32 (a convolution with AVX2).
    if settings.get("precision") == "bfloat16":
        settings["precision"] = "auto"
    return Checkpoint(path=found.path, data=data, settings=settings | asked)


def _check_changes(changes: Mapping[str, Any]) -> None:
    """Checks settings under the names that callers know."""
    side, scales = changes.get("max_side_px"), changes.get("scales")
    check(side is None or side >= MIN_SIDE_PX, "max_side_px", side, f">= {MIN_SIDE_PX}")
    is_usable = scales is None or (
        isinstance(scales, list | tuple)
        and bool(scales)
        and all(isinstance(scale, int | float) and scale > 0 for scale in scales)
    )
    check(is_usable, "scales", scales, "a tuple of positive numbers")
    precision = changes.get("precision")
    choices = get_args(InferenceConfig.__annotations__["precision"])
    is_known = precision is None or precision in choices
    check(is_known, "precision", precision, f"one of {', '.join(choices)}")


def _read(path: str) -> bytes:
    try:
        return storage.read_bytes(path)
    except FileNotFoundError as error:
        directory = path.rpartition("/")[0]
        raise ArtifactError(
            f"{path} is missing: remove {directory} and run the pipeline again, which trains the "
            "network again"
        ) from error
