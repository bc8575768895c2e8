"""Replacement of single settings, named by their dotted path."""

import os
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from difflib import get_close_matches
from typing import Any, TypeVar, get_type_hints

from pydantic import TypeAdapter, ValidationError

from slams_ray.errors import ConfigError

Config = TypeVar("Config")


def override(config: Config, values: Mapping[str, Any]) -> Config:
    """Returns a copy with the given settings replaced, for example `{"crf.alpha": 6.0}`.

    `{"crf": {"alpha": 6.0}}` is the same. A list becomes a tuple and a path becomes text. An
    integer or text becomes a number where the setting is one. The copy checks its values again.

    Raises:
        ConfigError: a setting does not exist, or a value is of another type or out of range.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f"settings are {values!r}, expected a mapping such as {{'seed': 1}}")
    for path, value in values.items():
        try:
            config = _replace_at(config, str(path), str(path).split("."), value)
        except ConfigError as error:
            # A section inside another does not know where it is.
            raise error if str(path) in str(error) else ConfigError(f"{path}: {error}") from error
    return config


def _replace_at(config: Any, path: str, names: list[str], value: Any) -> Any:
    known = [f.name for f in fields(config)] if is_dataclass(config) else []
    name, *rest = names
    if name not in known:
        near = get_close_matches(name, known, 1)
        guess = f": did you mean {near[0]}?" if near else ""
        raise ConfigError(
            f"there is no setting {path}: {name!r} is not among {', '.join(known) or 'any'}{guess}"
        )
    present = getattr(config, name)
    if rest:
        value = _replace_at(present, path, rest, value)
    elif is_dataclass(present) and isinstance(value, Mapping):
        for inner, inner_value in value.items():
            inner_path = f"{path}.{inner}"
            present = _replace_at(present, inner_path, str(inner).split("."), inner_value)
        value = present
    elif is_dataclass(present) and not isinstance(value, type(present)):
        raise ConfigError(f"{path} is {value!r}, expected a mapping of its settings")
    else:
        value = _of_type(get_type_hints(type(config))[name], path, value)
    return replace(config, **{name: value})


def _of_type(kind: Any, path: str, value: Any) -> Any:
    plain = os.fspath(value) if isinstance(value, os.PathLike) else _with_tuples(value)
    try:
        # Strict, because True would pass for 1, and a set for a tuple in any order. Text is
        # converted, because YAML takes 1e-3 for text.
        return TypeAdapter(kind).validate_python(plain, strict=not isinstance(plain, str))
    except ValidationError as error:
        texts = {
            problem["msg"].replace("Input should be", "expected") for problem in error.errors()
        }
        expected = "; ".join(sorted(texts)).replace("a valid tuple", "a list")
        raise ConfigError(f"{path} is {value!r}: {expected}") from error


def _with_tuples(value: Any) -> Any:
    return tuple(map(_with_tuples, value)) if isinstance(value, list | tuple) else value
