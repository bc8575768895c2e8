"""What all benchmark jobs share: where their rows go."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, TypeVar

import tyro

from slams_ray.cli.command import guarded, module_name
from slams_ray.cli.tables import print_benchmark

if TYPE_CHECKING:
    from slams_ray.benchmarks.harness.measure import Row


@dataclass(frozen=True, kw_only=True)
class BenchmarkCommand:
    """Where the rows go: printed, written as JSON, logged to MLflow."""

    output: str | None = None
    """JSON file for the rows: what, against, ratio, goal, met, spread, machine. Default:
    <workspace>/<benchmark>.json."""
    workspace: str = "runs/benchmarks"
    """Directory for what the benchmark writes, and for MLflow where MLFLOW_TRACKING_URI is not
    set."""


Command = TypeVar("Command", bound=BenchmarkCommand)


def run_benchmark(
    description: str | None,
    command_type: type[Command],
    measure: "Callable[[Command], list[Row]]",
) -> None:
    """Entry point of a benchmark job: parses the command line, measures, and shows the rows."""
    command = tyro.cli(command_type, description=description, prog=f"python -m {module_name()}")
    guarded(lambda: show(command, measure(command)))


def show(command: BenchmarkCommand, rows: "list[Row]") -> None:
    """Prints the rows, writes them as JSON and logs them to MLflow."""
    from slams_ray import storage
    from slams_ray.benchmarks.harness.publish import publish

    print_benchmark(rows)
    name = module_name().removeprefix("jobs.")
    workspace = storage.absolute(command.workspace)
    output = storage.absolute(command.output or storage.join(workspace, f"{name}.json"))
    publish(rows, name, workspace, output, asdict(command))
