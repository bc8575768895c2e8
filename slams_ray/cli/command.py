"""Command line of all jobs: recipe, overrides, dry run and errors."""

import inspect
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, NoReturn, TypeVar

import tyro

from slams_ray.cli.config_file import with_config_file
from slams_ray.cli.old_names import check_names
from slams_ray.cli.settings_help import HelpRequest, help_request, overview, shown_settings
from slams_ray.config import PipelineConfig
from slams_ray.config.pipeline import unread_fields
from slams_ray.errors import ConfigError, SlamsError
from slams_ray.recipes import RECIPES, check_recipe
from slams_ray.runtime.submitted_job import check_stays, workspace_path

Command = TypeVar("Command", bound="PipelineCommand")
POSITIONAL_NAMES = (tyro.conf.PositionalMetavarFromFieldName,)
"""Lets the help show `WORKSPACE` for a positional argument, and not its type."""


@dataclass(frozen=True, kw_only=True)
class PipelineCommand:
    """Settings of one run. The recipe sets the defaults."""

    config: Annotated[PipelineConfig, tyro.conf.arg(name="")]
    workspace: str | None = None
    """Directory or URI of all outputs; the default is runs/<recipe>."""
    dashboard: bool = False
    """Starts Ray's dashboard with a local cluster; its address is in the first lines of the log."""
    dry_run: bool = False
    """Prints the resolved settings and exits."""
    save_config: str | None = None
    """Writes the resolved settings to this YAML file and exits. --config FILE starts from them."""


def check_seed(config: PipelineConfig, seeds: Sequence[int]) -> None:
    """Refuses a `--seed` of a job that takes `--seeds`.

    Raises:
        ConfigError: the settings name another random seed than their default and `seeds`.
    """
    if config.seed not in (PipelineConfig.seed, *seeds):
        raise ConfigError(f"seed is {config.seed}, but this job takes --seeds: use that instead")


def run_job(
    description: str | None,
    command_type: type[Command],
    work: Callable[[str, Command], None],
    preview: Callable[[Command], None] | None = None,
) -> None:
    """Parses the command line and runs the work, or prints the settings of a dry run.

    Args:
        work: takes the name of the recipe and the parsed command.
        preview: checks and prints what a job of many pipelines would run, in a dry run.
    """
    recipe, command = parse(description, command_type)
    if command.dry_run:
        _end_with_the_pipe()
        print_settings(command.config)
        if preview is not None:
            guarded(lambda: preview(command))
    elif command.save_config is not None:
        path = command.save_config
        guarded(lambda: save_settings(path, recipe, command.config))
    else:
        guarded(lambda: _start(recipe, command, work))


def _end_with_the_pipe() -> None:
    """Lets the process end quietly in `... | head`, as other programs do."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)


def _start(recipe: str, command: Command, work: Callable[[str, Command], None]) -> None:
    if command.dashboard:
        from slams_ray.stages import pipeline

        pipeline.connect(dashboard=True)
    work(recipe, command)


def parse(
    description: str | None, command_type: type[Command], args: list[str] | None = None
) -> tuple[str, Command]:
    """Returns the name of the recipe, and its settings with the command line's overrides.

    Args:
        command_type: PipelineCommand or a subclass with more fields.
        args: arguments to parse; None parses those of the process.
    """
    arguments = sys.argv[1:] if args is None else args
    try:
        request = help_request(arguments)
        arguments = with_config_file(arguments if request is None else request.arguments)
        if request is not None:
            request = replace(request, arguments=arguments)
        check_names(arguments)
        if arguments and not arguments[0].startswith("-"):
            check_recipe(arguments[0])
        named = [argument for argument in arguments if argument in RECIPES]
        choices = {
            name: (inspect.getdoc(recipe) or "", command_type(config=recipe()))
            for name, recipe in RECIPES.items()
        }
        if request is not None:
            # A program that passes arguments of its own may have other pipes.
            if args is None:
                _end_with_the_pipe()
            _explain(description, choices, request, named)
        # A suggestion for a misspelt setting then comes from this recipe, and not from all.
        choices = {name: choices[name] for name in named[:1]} or choices
        command = tyro.extras.overridable_config_cli(
            choices, description=description, args=arguments, prog=program_name()
        )
    except SlamsError as error:
        fail(_with_option(error, arguments))
    return named[0], command


def _explain(
    description: str | None,
    choices: Mapping[str, tuple[str, Any]],
    request: HelpRequest,
    named: Sequence[str],
) -> NoReturn:
    """Prints the help of a job or of the recipe that its command line names, and exits."""
    if not named:
        description = (
            f"{description}\n\n`{program_name()} demo --help` lists the sections of settings."
        )
    shown = {name: (about, shown_settings(c, request)) for name, (about, c) in choices.items()}
    try:
        tyro.extras.overridable_config_cli(
            shown, description=description, args=request.arguments, prog=program_name()
        )
    except SystemExit as ended:
        if named and request.is_overview and not ended.code:
            program = f"{program_name()} {named[0]}"
            print(overview(choices[named[0]][1].config, request.arguments, program))
        raise
    raise AssertionError("the parser returned from --help")


def _with_option(error: SlamsError, arguments: Sequence[str]) -> SlamsError:
    """Returns the error with the option that it is about.

    Sections inside others do not know where they are: training.epochs may be of any network.
    """
    field = str(error).partition(" is ")[0].replace("_", "-")
    options = [argument.partition("=")[0].replace("_", "-") for argument in arguments]
    found = {o for o in options if f".{o.removeprefix('--')}".endswith(f".{field}")}
    return type(error)(f"{found.pop()}: {error}") if len(found) == 1 else error


def program_name() -> str:
    """Returns the command that started this process: `slams X`, or `python -m jobs.X`."""
    spec = sys.modules["__main__"].__spec__
    is_job = spec is not None and spec.name.startswith("jobs.")
    return f"python -m {spec.name}" if spec and is_job else sys.argv[0]


def guarded(work: Callable[[], None]) -> None:
    """Runs the work with logging; a SlamsError prints one message and exits with status 1."""
    from slams_ray.runtime.environment import set_defaults
    from slams_ray.runtime.progress import log_to_stdout

    set_defaults()
    log_to_stdout()
    try:
        work()
    except SlamsError as error:
        fail(error)
    except KeyboardInterrupt:
        print("stopped; run the same command again to continue", file=sys.stderr)
        sys.exit(130)


def fail(error: SlamsError) -> NoReturn:
    """Prints the message of an error and exits with status 1."""
    print(f"{type(error).__name__}: {error}", file=sys.stderr)
    sys.exit(1)


def print_settings(config: PipelineConfig) -> None:
    """Prints one setting per line, as dotted name = value, without those of other systems."""
    from slams_ray.artifacts import flatten, to_plain

    unread = unread_fields(config.trained_systems)
    settings = {name: value for name, value in to_plain(config).items() if name not in unread}
    for name, value in flatten(settings).items():
        print(f"{name} = {value}")


def save_settings(path: str, recipe: str, config: PipelineConfig) -> None:
    """Writes the resolved settings of a run as YAML."""
    from slams_ray import storage
    from slams_ray.stages.config_file import dump_config

    check_stays("--save-config", path)
    storage.write_bytes(path, dump_config(recipe, config).encode())
    print(f"settings in {path}: start from them with --config {path}")


def workspace_of(recipe: str, command: PipelineCommand) -> str:
    """Returns the absolute path of a command's workspace; raises as `workspace_path`."""
    return workspace_path(recipe, command.workspace, "--workspace")
