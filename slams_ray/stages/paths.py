"""Paths in the settings of a pipeline: absolute for workers, and checked before the first stage."""

from slams_ray import storage
from slams_ray.artifacts import flatten, to_plain
from slams_ray.config import PipelineConfig
from slams_ray.config.overrides import override
from slams_ray.config.pipeline import GIVEN_WEIGHTS, unread_fields
from slams_ray.errors import ConfigError
from slams_ray.networks.weights import NO_WEIGHTS

_BACKBONES = tuple(f"{name}.backbone.weights" for name in ("classifier", "encoder", "segmentation"))
_PATHS = (
    *(f"data.{name}" for name in ("root", "train_list", "val_list", "score_list")),
    *(f"imported.{name}" for name in ("maps", "labels")),
    *(f"{name}.weights" for name in GIVEN_WEIGHTS),
    *_BACKBONES,
)


def with_absolute_paths(config: PipelineConfig) -> PipelineConfig:
    """Returns the settings with absolute paths: workers and trials run in other directories."""
    settings = _settings(config)
    paths = {name: settings[name] for name in _PATHS if _is_path(settings[name])}
    return override(config, {name: storage.absolute(path) for name, path in paths.items()})


def check_weights(config: PipelineConfig) -> None:
    """Raises ConfigError if a file of weights is missing, before anything is computed."""
    unread = unread_fields(config.trained_systems)
    for name, path in _settings(config).items():
        is_read = name in _BACKBONES and name.partition(".")[0] not in unread
        if is_read and _is_path(path) and not storage.exists(path):
            raise ConfigError(f"{name} names {path}, which is not a file")


def _settings(config: PipelineConfig) -> dict[str, str]:
    return flatten(to_plain(config))


def _is_path(value: str | None) -> bool:
    return bool(value) and value != NO_WEIGHTS and "_Weights." not in str(value)
