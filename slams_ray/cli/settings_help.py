"""Help of a recipe: an overview of its sections, or the settings of some or all."""

import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, make_dataclass
from difflib import get_close_matches
from typing import Annotated, Any

import tyro

from slams_ray.config import PipelineConfig
from slams_ray.config.pipeline import unread_fields
from slams_ray.errors import ConfigError
from slams_ray.recipes import RECIPES

HELP_OPTIONS = ("-h", "--help")
ALL = "all"
"""Word after `--help` that asks for the settings of all sections."""


@dataclass(frozen=True, kw_only=True)
class HelpRequest:
    """What a command line asks the help for.

    Attributes:
        arguments: the command line without the sections, and with `--help` at its end.
        sections: fields of PipelineConfig to explain; empty for the overview.
        explains_all: whether the settings of all systems that run are to be explained.
    """

    arguments: list[str]
    sections: tuple[str, ...]
    explains_all: bool

    @property
    def is_overview(self) -> bool:
        """Whether the help lists sections only."""
        return not self.sections and not self.explains_all


def help_request(arguments: Sequence[str]) -> HelpRequest | None:
    """Returns what `--help [SECTION ...]` asks for; None on a command line without it.

    Raises:
        ConfigError: there is no such section.
    """
    start = next((place for place, word in enumerate(arguments) if word in HELP_OPTIONS), None)
    if start is None:
        return None
    others, words = list(arguments[:start]), list[str]()
    after = list(arguments[start + 1 :])
    while after and not after[0].startswith("-"):
        word = after.pop(0)
        (others if word in RECIPES else words).append(word)
    names = tuple(word.split(".")[0].replace("-", "_") for word in words if word != ALL)
    _check_sections(names)
    return HelpRequest(
        arguments=[*others, *after, "--help"], sections=names, explains_all=ALL in words
    )


def shown_settings(command: Any, request: HelpRequest) -> Any:
    """Returns the command with a type whose help has the settings that a request asks for.

    It is for help only: a parser of this type refuses the hidden settings.

    Args:
        command: settings of a recipe, a dataclass with the field `config`.
        request: its command line's names of systems count before the recipe's.
    """
    config = command.config
    shown = set(request.sections)
    if request.explains_all:
        shown.update(_read_sections(config, request.arguments))
    types = {f.name: Annotated[f.type, tyro.conf.Suppress] for f in fields(config)}
    config_type = _with_fields(
        PipelineConfig, {name: types[name] for name in section_names() if name not in shown}
    )
    annotated = Annotated[config_type, tyro.conf.arg(name="")]  # type: ignore[valid-type]
    command_type = _with_fields(type(command), {"config": annotated})
    return command_type(**_values(command) | {"config": config_type(**_values(config))})


def overview(config: PipelineConfig, arguments: Sequence[str], program: str) -> str:
    """Returns a line for each section: its name, number of settings and first sentence.

    Args:
        arguments: the command line, whose names of systems count before the recipe's.
        program: the command of the recipe, such as `slams pipeline demo`.
    """
    read = _read_sections(config, arguments)
    width = max(len(_shown(name)) for name in read)
    lines = [
        f"  {_shown(name):{width}}  {num_settings(getattr(config, name)):3}  "
        f"{_first_line(getattr(config, name))}"
        for name in read
    ]
    others = [_shown(name) for name in section_names() if name not in read]
    return "\n".join(
        [
            "Sections, with the number of their settings:",
            "",
            *lines,
            "",
            *([f"Sections of systems that do not run: {', '.join(others)}", ""] if others else []),
            f"`{program} --help SECTION ...` explains the settings of sections, `--help {ALL}` "
            "those of every system that runs.",
        ]
    )


def section_names() -> list[str]:
    """Returns the fields of PipelineConfig that hold settings of their own, in order."""
    return [f.name for f in fields(PipelineConfig) if is_dataclass(f.type)]


def num_settings(section: Any) -> int:
    """Returns the number of settings of a section, those of sections inside it included."""
    values = [getattr(section, f.name) for f in fields(section)]
    return sum(num_settings(value) if is_dataclass(value) else 1 for value in values)


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


def _read_sections(config: PipelineConfig, arguments: Sequence[str]) -> list[str]:
    """Returns the sections that the systems of a command line read, in order."""
    # jobs.compare has --systems in place of the other two.
    systems = set(named_systems(arguments, "systems")) or {
        *(named_systems(arguments, "system") or [config.system]),
        *(named_systems(arguments, "baselines") or config.baselines),
    }
    if "slams" in systems:
        of = named_systems(arguments, "activation.pseudo-labels-of")
        systems.update(of or [config.activation.pseudo_labels_of])
    unread = unread_fields(systems)
    return [name for name in section_names() if name not in unread]


def _check_sections(names: Iterable[str]) -> None:
    known = section_names()
    for name in names:
        if name not in known:
            near = get_close_matches(name, [*known, *RECIPES], 1)
            guess = f": did you mean {_shown(near[0])}?" if near else ""
            raise ConfigError(
                f"there is no section {_shown(name)!r} of settings, expected {ALL} or some of "
                f"{', '.join(map(_shown, known))}, or a recipe: {', '.join(RECIPES)}{guess}"
            )


def _shown(name: str) -> str:
    """Returns a section's name as options have it, pixel-adaptive for pixel_adaptive."""
    return name.replace("_", "-")


def _first_line(section: Any) -> str:
    """Returns the first sentence of a section's docstring without its reference."""
    text = " ".join((inspect.getdoc(type(section)) or "").split("\n\n")[0].split())
    return text.split(". ")[0].split(" (docs/")[0].rstrip(".")


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
