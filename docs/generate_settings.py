"""Writes settings.md from the dataclasses: python docs/generate_settings.py."""

import ast
import inspect
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

from slams_ray.config import PipelineConfig
from slams_ray.recipes import RECIPES

OUTPUT = Path(__file__).parent / "settings.md"
HEAD = """# Settings

Every setting of a pipeline, as `--section.name` on the command line or in a configuration file.
The column *default* has the values of the classes. A recipe sets its own: the columns `folder` and
`voc12` have theirs where they differ. `--dry-run` prints all values of any recipe.
This page is generated: `make docs`.
"""
SHOWN_RECIPES = ("folder", "voc12")
"""Recipes whose values have a column."""


def render() -> str:
    """Returns the page."""
    hints = get_type_hints(PipelineConfig)
    sections = [(f.name, hints[f.name]) for f in fields(PipelineConfig)]
    own = [name for name, kind in sections if not is_dataclass(kind)]
    recipes = {name: RECIPES[name]() for name in SHOWN_RECIPES}
    parts = [HEAD, "## Pipeline\n", _table(PipelineConfig, "", own, recipes)]
    for name, kind in sections:
        if is_dataclass(kind):
            of_section = {recipe: getattr(config, name) for recipe, config in recipes.items()}
            tables = _tables(kind, f"{name}.", of_section)
            parts += [f"## {name}\n", inspect.getdoc(kind) or "", "", *tables]
    return "\n".join(parts).rstrip() + "\n"


def _tables(kind: Any, prefix: str, recipes: Mapping[str, Any]) -> Iterator[str]:
    """Yields the table of a section, and a reference for each section inside it.

    Args:
        recipes: recipe -> its values of this section.
    """
    hints = get_type_hints(kind)
    own = [f.name for f in fields(kind) if not is_dataclass(hints[f.name])]
    if own:
        yield _table(kind, prefix, own, recipes)
    for field in fields(kind):
        if is_dataclass(hints[field.name]):
            shared = hints[field.name].__name__
            yield f"`{prefix}{field.name}.*`: see [{shared}](#{shared.lower()}).\n"
            changes = {name: _changes(getattr(v, field.name)) for name, v in recipes.items()}
            if any(changes.values()):
                rows = [f"| `{name}` | {shown or 'default'} |" for name, shown in changes.items()]
                yield "\n".join([f"| recipe | `{prefix}{field.name}.*` |", "|---|---|", *rows, ""])


def _changes(values: Any) -> str:
    """Returns the settings of a section inside another that are not the default."""
    changed = {f.name: s for f in fields(values) if (s := _changed(f, values))}
    return ", ".join(f"`{name}` {shown}" for name, shown in changed.items())


def _table(
    kind: Any, prefix: str, names: list[str], recipes: Mapping[str, Any] | None = None
) -> str:
    """Returns one table; a column for each recipe only where one has another value."""
    help_of = field_help(kind)
    found = {f.name: f for f in fields(kind)}
    cells = {
        name: [_changed(found[name], values) for values in (recipes or {}).values()]
        for name in names
    }
    columns = list(recipes or {}) if any(any(row) for row in cells.values()) else []
    rows = [
        " | ".join(
            [
                f"| `{prefix}{name}`",
                _default(found[name]),
                *cells[name][: len(columns)],
                f"{help_of.get(name, '')} |",
            ]
        )
        for name in names
    ]
    head = " | ".join(["| setting", "default", *(f"`{c}`" for c in columns), "|"])
    return "\n".join([head, "|---|---|---|" + "---|" * len(columns), *rows, ""])


def _changed(field: "Field[Any]", values: Any) -> str:
    """Returns the value that a recipe gives to a setting; empty if that is the default."""
    value = getattr(values, field.name)
    return "" if value == field.default else f"`{value!r}`"


def _default(field: "Field[Any]") -> str:
    if field.default is not MISSING:
        return f"`{field.default!r}`" if field.default != "" else "empty"
    return "" if field.default_factory is MISSING else "section"


def field_help(kind: type) -> dict[str, str]:
    """Returns field -> its docstring, from the source of a dataclass and of its bases."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        if not is_dataclass(base):
            continue
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        assert isinstance(tree, ast.ClassDef)
        for field, text in zip(tree.body, tree.body[1:], strict=False):
            if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
                name, value = field.target, text.value
                assert isinstance(name, ast.Name)
                assert isinstance(value, ast.Constant)
                found[name.id] = " ".join(str(value.value).split()).replace("|", "\\|")
    return found


def shared_sections() -> str:
    """Returns the tables of the classes that several sections hold."""
    from slams_ray.config import BackboneConfig, TrainingConfig
    from slams_ray.config.networks import LossConfig

    parts = []
    for kind in (BackboneConfig, TrainingConfig, LossConfig, *_inference()):
        names = [f.name for f in fields(kind)]
        parts += [f"## {kind.__name__}\n", inspect.getdoc(kind) or "", "", _table(kind, "", names)]
    return "\n".join(parts)


def _inference() -> list[type]:
    from slams_ray.config import InferenceConfig
    from slams_ray.config.labels import PredictionCrfConfig

    return [InferenceConfig, PredictionCrfConfig]


if __name__ == "__main__":
    OUTPUT.write_text(render() + "\n" + shared_sections().rstrip() + "\n")
