"""How fast the threshold curve and the shared lattice are, as ratios.

python -m jobs.benchmark_threshold --output threshold.json
"""

from dataclasses import dataclass

import tyro

from jobs.tables import print_benchmark


@dataclass(frozen=True, kw_only=True)
class BenchmarkCommand:
    """Work on generated images of the size of VOC's."""

    output: str | None = None
    """JSON file for the rows: what, against, ratio, goal, met, spread, machine."""
    num_images: int = 12
    """Images of the curve."""
    rounds: int = 7
    """Times each pair is measured."""


def _benchmark(command: BenchmarkCommand) -> None:
    from slams_ray.benchmarks.threshold import curve_rows, lattice_row

    rows = [*curve_rows(command.num_images, command.rounds), lattice_row(8, 3)]
    print_benchmark(rows, command.output)


if __name__ == "__main__":
    _benchmark(
        tyro.cli(BenchmarkCommand, description=__doc__, prog="python -m jobs.benchmark_threshold")
    )
