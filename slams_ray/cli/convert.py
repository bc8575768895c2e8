"""Command line that converts pickled maps."""

import sys
from dataclasses import dataclass

import tyro

from slams_ray.cli.command import guarded


@dataclass(frozen=True, kw_only=True)
class ConvertCommand:
    """Converts a directory of pickled maps."""

    source: tyro.conf.Positional[str]
    """Directory or URI with one <image_id>.npy per image. They are pickles, which are read without
    running their code."""
    output: tyro.conf.Positional[str]
    """Directory or URI for <image_id>.npz, to be given as imported.maps."""


def run_convert(description: str | None) -> None:
    """Parses the command line and converts."""
    prog = f"python -m {spec.name}" if (spec := sys.modules["__main__"].__spec__) else None
    command = tyro.cli(ConvertCommand, description=description, prog=prog)
    guarded(lambda: _convert(command))


def _convert(command: ConvertCommand) -> None:
    from slams_ray.stages import convert

    num_files = convert.run(command.source, command.output)
    print(f"{num_files} files of maps in {command.output}")
