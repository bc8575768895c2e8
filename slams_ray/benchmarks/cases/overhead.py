"""Share of a pipeline's wall time spent in useful work, and start-up cost of a job.

python -m jobs.benchmark overhead
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from slams_ray.benchmarks.cases.command import BenchmarkCommand
from slams_ray.recipes import RECIPES

if TYPE_CHECKING:
    from slams_ray.benchmarks.harness.measure import Row


@dataclass(frozen=True, kw_only=True)
class OverheadCommand(BenchmarkCommand):
    """Measures the recipe demo on a running cluster."""

    rounds: int = 5
    """Number of times the start of a job is measured."""


def measure(command: OverheadCommand) -> "list[Row]":
    """Returns the rows of the case."""
    from slams_ray.benchmarks.harness import shards
    from slams_ray.benchmarks.measurements import overhead

    with shards.scratch(command.workspace) as directory:
        return [
            *overhead.start_rows(command.rounds),
            *overhead.pipeline_rows(RECIPES["demo"](), directory, "demo"),
        ]
