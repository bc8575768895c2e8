"""Convert pickled maps of other programs (.npy, as IRN writes them) to .npz files without pickle.

python -m jobs.convert path/to/cam runs/imported
"""

from dataclasses import dataclass

import tyro

from slams_ray.cli.command import POSITIONAL_NAMES, guarded, program_name


@dataclass(frozen=True, kw_only=True)
class ConvertCommand:
    """Converts a directory of pickled maps."""

    source: tyro.conf.Positional[str]
    """Directory or URI with one <image_id>.npy per image. They are pickles, which are read without
    running their code."""
    output: tyro.conf.Positional[str]
    """Directory or URI for <image_id>.npz, to be given as imported.maps."""


def main() -> None:
    """Entry point of `slams convert` and `jobs.convert`."""
    command = tyro.cli(
        ConvertCommand, description=__doc__, prog=program_name(), config=POSITIONAL_NAMES
    )
    guarded(lambda: _convert(command))


def _convert(command: ConvertCommand) -> None:
    from slams_ray.stages import convert

    num_files = convert.run(command.source, command.output)
    print(f"{num_files} files of maps in {command.output}")
