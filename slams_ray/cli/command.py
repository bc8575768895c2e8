"""What all jobs share: recipe and overrides from the command line, and errors."""

import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, NoReturn, TypeVar

import tyro

from slams_ray.cli.old_names import check_names
from slams_ray.config import PipelineConfig
from slams_ray.errors import SlamsError
from slams_ray.recipes import RECIPES

Command = TypeVar("Command", bound="PipelineCommand")


@dataclass(frozen=True, kw_only=True)
class PipelineCommand:
    """Settings of one run; those of the recipe apply unless overridden."""

    config: Annotated[PipelineConfig, tyro.conf.arg(name="")]
    workspace: str | None = None
    """Directory or URI for all outputs. Default: runs/<recipe>."""
    dry_run: bool = False
    """Print the resolved settings and exit."""


def run_job(
    description: str, command_type: type[Command], work: Callable[[str, Command], None]
) -> None:
    """Parses the command line and does the work, or prints the settings of a dry run.

    Args:
        work: takes the recipe's name and the parsed command.
    """
    recipe, command = parse(description, command_type)
    if command.dry_run:
        print_settings(command.config)
    else:
        guarded(lambda: work(recipe, command))


def parse(
    description: str, command_type: type[Command], args: list[str] | None = None
) -> tuple[str, Command]:
    """Recipe name and its settings with the overrides of the command line.

    Args:
        command_type: PipelineCommand, or one with fields of its own beside.
    """
    arguments = sys.argv[1:] if args is None else args
    try:
        check_names(arguments)
        choices = {
            name: (inspect.getdoc(recipe) or "", command_type(config=recipe()))
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
    from slams_ray.runtime.environment import set_defaults
    from slams_ray.runtime.progress import log_to_stdout

    set_defaults()
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


def workspace_of(recipe: str, command: PipelineCommand) -> str:
    """The workspace asked for, or the recipe's own; absolute, because workers stand elsewhere."""
    from slams_ray import storage

    return storage.absolute(command.workspace or f"runs/{recipe}")
