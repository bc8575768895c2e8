"""Writes settings.md from the dataclasses: python docs/generate_settings.py."""

import ast
import inspect
import textwrap
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

from slams_ray.config import PipelineConfig

OUTPUT = Path(__file__).parent / "settings.md"
HEAD = """# Settings

Every setting of a pipeline, as `--section.name` on the command line or in a configuration file.
The defaults here are those of the classes; a recipe sets its own, which `--dry-run` prints.
This page is generated: `make docs`.
"""


def render() -> str:
    """Returns the page."""
    hints = get_type_hints(PipelineConfig)
    sections = [(f.name, hints[f.name]) for f in fields(PipelineConfig)]
    own = [name for name, kind in sections if not is_dataclass(kind)]
    parts = [HEAD, "## Pipeline\n", _table(PipelineConfig, "", own)]
    for name, kind in sections:
        if is_dataclass(kind):
            parts += [f"## {name}\n", inspect.getdoc(kind) or "", "", *_tables(kind, f"{name}.")]
    return "\n".join(parts).rstrip() + "\n"


def _tables(kind: Any, prefix: str) -> Iterator[str]:
    hints = get_type_hints(kind)
    own = [f.name for f in fields(kind) if not is_dataclass(hints[f.name])]
    if own:
        yield _table(kind, prefix, own)
    for field in fields(kind):
        if is_dataclass(hints[field.name]):
            shared = hints[field.name].__name__
            yield f"`{prefix}{field.name}.*`: see [{shared}](#{shared.lower()}).\n"


def _table(kind: Any, prefix: str, names: list[str]) -> str:
    help_of = field_help(kind)
    found = {f.name: f for f in fields(kind)}
    rows = [
        f"| `{prefix}{name}` | {_default(found[name])} | {help_of.get(name, '')} |"
        for name in names
    ]
    return "\n".join(["| setting | default | |", "|---|---|---|", *rows, ""])


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
