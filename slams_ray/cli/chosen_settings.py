"""Help that leaves out the settings of systems that a pipeline does not run."""

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, field, fields, make_dataclass
from typing import Annotated, Any

import tyro

from slams_ray.config import PipelineConfig
from slams_ray.config.pipeline import unread_fields


def named_systems(arguments: Sequence[str], option: str) -> list[str]:
    """Returns the values of `--option` on a command line; empty if it is not given."""
    found: list[str] = []
    is_value = False
    for argument in arguments:
        if argument.startswith("--"):
            name, _, value = argument.partition("=")
            is_value = name.replace("_", "-") == f"--{option}"
            found += [value] if is_value and value else []
        elif is_value:
            found.append(argument)
    return found


def without_unread_settings(command: Any, arguments: Sequence[str]) -> Any:
    """Returns the command with a type whose help has no settings of systems that do not run.

    It is for help only: a parser of this type refuses the hidden settings.

    Args:
        command: settings of a recipe, a dataclass with the field `config`.
        arguments: the command line, whose names of systems count before the recipe's.
    """
    config = command.config
    systems = {
        *(named_systems(arguments, "system") or [config.system]),
        *(named_systems(arguments, "baselines") or config.baselines),
    }
    if "slams" in systems:
        of = named_systems(arguments, "activation.pseudo-labels-of")
        systems.update(of or [config.activation.pseudo_labels_of])
    hidden = unread_fields(systems)
    types = {f.name: Annotated[f.type, tyro.conf.Suppress] for f in fields(config)}
    config_type = _with_fields(PipelineConfig, {name: types[name] for name in hidden})
    annotated = Annotated[config_type, tyro.conf.arg(name="")]  # type: ignore[valid-type]
    command_type = _with_fields(type(command), {"config": annotated})
    return command_type(**_values(command) | {"config": config_type(**_values(config))})


def _with_fields(base: type, types: Mapping[str, Any]) -> Any:
    """Returns a dataclass like `base`, whose named fields have other types."""
    default = {f.name: f.default_factory for f in fields(base)}
    redefined = [
        (name, kind, field(default_factory=default[name]))
        if default[name] is not MISSING
        else (name, kind)
        for name, kind in types.items()
    ]
    return make_dataclass(base.__name__, redefined, bases=(base,), frozen=True, kw_only=True)


def _values(instance: Any) -> dict[str, Any]:
    return {f.name: getattr(instance, f.name) for f in fields(instance)}
