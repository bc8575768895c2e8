"""Paths in the settings of a pipeline: absolute for workers, and checked before the first stage."""

from collections.abc import Sequence
from pathlib import Path

from slams_ray import storage
from slams_ray.artifacts import flatten, to_plain
from slams_ray.config import PipelineConfig
from slams_ray.config.overrides import override
from slams_ray.config.pipeline import GIVEN_WEIGHTS
from slams_ray.errors import ConfigError
from slams_ray.networks.weights import NO_WEIGHTS

_OWN_WEIGHTS, _OTHERS = ("encoder", "segmentation"), "classifier"
_BACKBONES = tuple(f"{name}.backbone.weights" for name in (*_OWN_WEIGHTS, _OTHERS))
_PATHS = (
    *(f"data.{name}" for name in ("root", "train_list", "val_list", "score_list")),
    *(f"imported.{name}" for name in ("maps", "labels")),
    *(f"{name}.weights" for name in GIVEN_WEIGHTS),
    *_BACKBONES,
)
_ENTRIES = {"folder": "labels.csv", "voc": "JPEGImages", "coco": "annotations"}
"""Format -> a file or directory without which no data set of it can be read."""


def with_absolute_paths(config: PipelineConfig) -> PipelineConfig:
    """Returns the settings with absolute paths: workers and trials run in other directories."""
    settings = _settings(config)
    paths = {name: settings[name] for name in _PATHS if _is_path(settings[name])}
    return override(config, {name: storage.absolute(path) for name, path in paths.items()})


def check_data(config: PipelineConfig) -> None:
    """Raises ConfigError before any work if `data.root` on this machine is not a data set."""
    root = storage.absolute(config.data.root)
    if config.data.format == "synthetic" or "://" in root:
        return
    if not Path(root).is_dir():
        raise ConfigError(
            f"data.root is {config.data.root!r}, but there is no directory {root}: set data.root "
            "to the place of the data set"
        )
    entry = Path(root, _ENTRIES[config.data.format])
    if not entry.exists():
        raise ConfigError(
            f"{entry} is missing, which a data set of data.format {config.data.format} has: check "
            "data.root and data.format"
        )


def check_weights(config: PipelineConfig, stages: Sequence[str]) -> None:
    """Raises ConfigError if a file of weights is missing, before anything is computed.

    Args:
        stages: names of the stages that run.
    """
    trainings = {name.removeprefix("train_") for name in stages if name.startswith("train_")}
    # Networks without weights of their own start from those of the classifier.
    networks = {name if name in _OWN_WEIGHTS else _OTHERS for name in trainings}
    for network in sorted(networks):
        name = f"{network}.backbone.weights"
        path = _settings(config)[name]
        if _is_path(path) and not storage.exists(path):
            raise ConfigError(f"{name} names {path}, which is not a file")


def _settings(config: PipelineConfig) -> dict[str, str]:
    return flatten(to_plain(config))


def _is_path(value: str | None) -> bool:
    return bool(value) and value != NO_WEIGHTS and "_Weights." not in str(value)
