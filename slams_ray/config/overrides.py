"""Replacement of single settings, named by their dotted path."""

import os
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar, get_type_hints

from pydantic import TypeAdapter, ValidationError

from slams_ray.errors import ConfigError

Config = TypeVar("Config")


def override(config: Config, values: Mapping[str, Any]) -> Config:
    """Returns a copy with the given settings replaced, for example `{"crf.alpha": 6.0}`.

    Values become of the type of their setting: lists tuples, and paths text. The copy checks its
    values again.

    Raises:
        ConfigError: a setting does not exist, or a value has another type or is out of range.
    """
    for path, value in values.items():
        config = _replace_at(config, path, path.split("."), value)
    return config


def _replace_at(config: Any, path: str, names: list[str], value: Any) -> Any:
    known = [f.name for f in fields(config)] if is_dataclass(config) else []
    name, *rest = names
    if name not in known:
        raise ConfigError(
            f"there is no setting {path}: {name!r} is not among {', '.join(known) or 'any'}"
        )
    if rest:
        value = _replace_at(getattr(config, name), path, rest, value)
    else:
        value = _of_type(get_type_hints(type(config))[name], path, value)
    return replace(config, **{name: value})


def _of_type(kind: Any, path: str, value: Any) -> Any:
    value = os.fspath(value) if isinstance(value, os.PathLike) else value
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        problems = {problem["msg"].lower() for problem in error.errors()}
        raise ConfigError(f"{path} is {value!r}: {'; '.join(sorted(problems))}") from error
