"""Measure one part of the system, as ratios to named alternatives in the same run.

python -m jobs.benchmark crf --voc-dir VOC2012
"""

import sys
from dataclasses import asdict
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from slams_ray.benchmarks.cases.command import BenchmarkCommand
from slams_ray.benchmarks.cases.registry import CASES
from slams_ray.cli.command import guarded, program_name
from slams_ray.cli.tables import print_benchmark

if TYPE_CHECKING:
    from slams_ray.benchmarks.harness.measure import Row


def main() -> None:
    """Entry point of `slams benchmark` and `jobs.benchmark`."""
    choices: Any = reduce(or_, (_choice(name) for name in CASES))
    command = tyro.cli(choices, description=__doc__, prog=program_name())
    name, measure = next((n, m) for n, (t, m) in CASES.items() if type(command) is t)
    guarded(lambda: show(name, command, measure(command)))


def _choice(name: str) -> Any:
    command_type, measure = CASES[name]
    about = sys.modules[measure.__module__].__doc__
    return Annotated[command_type, tyro.conf.subcommand(name, description=about)]


def show(name: str, command: BenchmarkCommand, rows: "list[Row]") -> None:
    """Prints the rows, writes them as JSON and logs them to MLflow."""
    from slams_ray import storage
    from slams_ray.benchmarks.harness.publish import publish

    print_benchmark(rows)
    workspace = storage.absolute(command.workspace)
    output = storage.absolute(command.output or storage.join(workspace, f"{name}.json"))
    publish(rows, f"benchmark_{name}", workspace, output, asdict(command))
