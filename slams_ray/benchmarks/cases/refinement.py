"""Random walk and pixel-adaptive refinement of one image, as ratios against named alternatives.

python -m jobs.benchmark refinement
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from slams_ray.benchmarks.cases.command import BenchmarkCommand

if TYPE_CHECKING:
    from slams_ray.benchmarks.harness.measure import Row


@dataclass(frozen=True, kw_only=True)
class RefinementCommand(BenchmarkCommand):
    """Generated edges and maps on the grid of a 375 x 500 photograph; needs scipy."""

    num_classes: int = 2
    """Classes of the image."""
    rounds: int = 5
    """Times each pair is measured."""


def measure(command: RefinementCommand) -> "list[Row]":
    """Measures the rows of this case."""
    from slams_ray.benchmarks.measurements.walk import walk_rows

    return walk_rows(command.num_classes, command.rounds)
