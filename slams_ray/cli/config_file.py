"""--config on the command line: settings of a file come before those of the command line."""

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

from slams_ray.errors import ConfigError
from slams_ray.recipes import RECIPES, recipe_of_file
from slams_ray.stages.config_file import read_config

OPTION = "--config"


def with_config_file(arguments: Sequence[str]) -> list[str]:
    """Replaces `--config FILE` by the recipe and the settings of the file.

    Settings on the command line come later, so they win. The parser of the command line checks
    names, types and values of both.

    Raises:
        ConfigError: the file is missing or not YAML, names no setting that exists, or no recipe is
            given.
    """
    path, rest = _split(arguments)
    if path is None:
        return list(arguments)
    recipe, settings = read_config(path)
    own = list(rest)
    if own and own[0] in RECIPES:
        recipe = own.pop(0)
    recipe = recipe_of_file(recipe, path)
    _check_names(settings, path)
    words = [word for name, value in settings.items() for word in _words(name, value)]
    return [recipe, *words, *own]


def _split(arguments: Sequence[str]) -> tuple[str | None, list[str]]:
    rest = list(arguments)
    for index, argument in enumerate(rest):
        if argument.startswith(f"{OPTION}="):
            return argument.partition("=")[2], rest[:index] + rest[index + 1 :]
        if argument == OPTION:
            if index + 1 == len(rest):
                raise ConfigError(f"{OPTION} has no value: give the path of a YAML file")
            return rest[index + 1], rest[:index] + rest[index + 2 :]
    return None, rest


def _check_names(settings: Mapping[str, Any], path: str) -> None:
    for name in settings:
        part: Any = RECIPES["demo"]()
        for word in name.split("."):
            known = [f.name for f in fields(part)] if is_dataclass(part) else []
            if word not in known:
                raise ConfigError(
                    f"{path} has the setting {name}, but {word!r} is not among "
                    f"{', '.join(known) or 'any settings'}"
                )
            part = getattr(part, word)


def _words(name: str, value: Any) -> list[str]:
    """Returns a setting as words of a command line."""
    option = f"--{name.replace('_', '-')}"
    if isinstance(value, bool):
        head, _, last = option.removeprefix("--").rpartition(".")
        last = last if value else f"no-{last}"
        return [f"--{head}.{last}" if head else f"--{last}"]
    if isinstance(value, list | tuple):
        return [option, *map(str, value)]
    return [option, str(value)]
