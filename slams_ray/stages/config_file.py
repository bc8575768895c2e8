"""Configuration files: a recipe and the settings that differ from it, as YAML."""

from collections.abc import Mapping
from typing import Any

import yaml

from slams_ray import storage
from slams_ray.artifacts import flatten, to_plain
from slams_ray.config.pipeline import PipelineConfig
from slams_ray.errors import ConfigError

CONFIG_NAME = "config.yaml"
"""File in a workspace with the settings of its last run."""
RECIPE = "recipe"


def dump_config(recipe: str, config: PipelineConfig) -> str:
    """Returns all settings of a pipeline as YAML, which starts the same run again."""
    return yaml.safe_dump({RECIPE: recipe, **to_plain(config)}, sort_keys=False)


def read_config(path: str) -> tuple[str | None, dict[str, Any]]:
    """Reads a configuration file at a path or URI; returns what `load_config` does.

    Raises:
        ConfigError: the file is missing, not YAML in UTF-8, or not a mapping of settings.
    """
    try:
        text = storage.read_bytes(path).decode()
    except FileNotFoundError as error:
        raise ConfigError(f"{path} is missing: give the path of a YAML file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not a YAML file in UTF-8: {error}") from error
    return load_config(text, path)


def load_config(text: str, source: str) -> tuple[str | None, dict[str, Any]]:
    """Reads a configuration file.

    Args:
        source: path of the file, for errors.

    Returns:
        Name of the recipe, None if the file names none; and dotted name -> value of each setting.

    Raises:
        ConfigError: the file is not YAML, or not a mapping of settings.
    """
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{source} is not YAML: {error}") from error
    if content is None:
        return None, {}
    if not isinstance(content, Mapping):
        raise ConfigError(
            f"{source} holds {type(content).__name__}, expected settings such as crf: "
            "{iterations: 8}"
        )
    settings = dict(content)
    recipe = settings.pop(RECIPE, None)
    if not isinstance(recipe, str | None):
        raise ConfigError(f"{source} has the recipe {recipe!r}, expected a name such as folder")
    return recipe, flatten(settings)
