"""What a pipeline on the built-in set spends on its stages' own work, and what a job's start takes.

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
    """The recipe demo on a cluster that runs already."""

    rounds: int = 5
    """Times the start of a job is measured."""


def measure(command: OverheadCommand) -> "list[Row]":
    from slams_ray.benchmarks.harness import shards
    from slams_ray.benchmarks.measurements import overhead

    with shards.scratch(command.workspace) as directory:
        return [
            *overhead.start_rows(command.rounds),
            *overhead.pipeline_rows(RECIPES["demo"](), directory, "demo"),
        ]
