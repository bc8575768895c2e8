"""What all jobs share: recipe and overrides from the command line, errors, the final table."""

import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, NoReturn

import tyro

from jobs.recipes import RECIPES
from slams_ray.config import PipelineConfig
from slams_ray.errors import SlamsError


@dataclass(frozen=True, kw_only=True)
class PipelineCommand:
    """Settings of one run; those of the recipe apply unless overridden."""

    config: Annotated[PipelineConfig, tyro.conf.arg(name="")]
    workspace: str | None = None
    """Directory or URI for all outputs. Default: runs/<recipe>."""
    dry_run: bool = False
    """Print the resolved settings and exit."""


def run_pipeline_job(last_stage: str, description: str) -> None:
    """Entry point of `jobs.pipeline` and of the jobs named after a stage."""
    recipe, command = parse(description)
    if command.dry_run:
        print_settings(command.config)
        return
    guarded(lambda: _run(recipe, command, last_stage))


def parse(description: str, args: list[str] | None = None) -> tuple[str, PipelineCommand]:
    """Recipe name and its settings with the overrides of the command line."""
    arguments = sys.argv[1:] if args is None else args
    try:
        choices = {
            name: (inspect.getdoc(recipe) or "", PipelineCommand(config=recipe()))
            for name, recipe in RECIPES.items()
        }
        command = tyro.extras.overridable_config_cli(
            choices, description=description, args=arguments, prog=f"python -m {module_name()}"
        )
    except SlamsError as error:
        fail(error)
    return next(a for a in arguments if a in RECIPES), command


def module_name() -> str:
    """The job's name as `python -m` takes it."""
    spec = sys.modules["__main__"].__spec__
    return spec.name if spec else "jobs.pipeline"


def guarded(work: Callable[[], None]) -> None:
    """Runs the work with logging on; our errors end with one message and exit status 1."""
    from slams_ray.runtime.progress import log_to_stdout

    log_to_stdout()
    try:
        work()
    except SlamsError as error:
        fail(error)
    except KeyboardInterrupt:
        print("stopped; the same command continues", file=sys.stderr)
        sys.exit(130)


def fail(error: SlamsError) -> NoReturn:
    """Prints the message and exits."""
    print(f"{type(error).__name__}: {error}", file=sys.stderr)
    sys.exit(1)


def print_settings(config: PipelineConfig) -> None:
    """One dotted name = value per line."""
    from slams_ray.artifacts import flatten, to_plain

    for name, value in flatten(to_plain(config)).items():
        print(f"{name} = {value}")


def _run(recipe: str, command: PipelineCommand, last_stage: str) -> None:
    from slams_ray import storage
    from slams_ray.stages import pipeline

    workspace = storage.absolute(command.workspace or f"runs/{recipe}")
    result = pipeline.run(command.config, workspace, recipe, last_stage)
    print_table(result.summary)


def print_table(summary: dict[str, Any]) -> None:
    """Stages with seconds, output and result, then the four scores."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD)
    for heading in ("stage", "seconds", "rows", "result", "output"):
        table.add_column(heading, justify="right" if heading in ("seconds", "rows") else "left")
    for stage in summary["stages"]:
        output = stage["output"].removeprefix(summary["workspace"]).lstrip("/")
        shown = "  ".join(f"{k} {v:.4g}" for k, v in list(stage["metrics"].items())[:3])
        table.add_row(stage["stage"], f"{stage['seconds']:.1f}", str(stage["rows"]), shown, output)
    console = Console(width=max(Console().width, 130))
    console.print(table)
    for name in ("cam_seed_miou", "slams_seed_miou", "refined_miou", "segmentation_miou"):
        if summary[name] is not None:
            console.print(f"{name:18} {100 * summary[name]:.2f} %")
    if summary["scored_split"] == "train":
        console.print("no val split: the network was scored on the images it was trained on")
    if summary["skipped_images"]:
        console.print(
            f"{summary['skipped_images']} bad images were skipped, see record.json of prepare"
        )
    console.print(f"outputs in {summary['workspace']}")
