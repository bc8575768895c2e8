"""Command line of the pipeline."""

from dataclasses import dataclass

from slams_ray.cli.command import PipelineCommand, run_job, workspace_of
from slams_ray.cli.tables import print_summary


@dataclass(frozen=True, kw_only=True)
class RunCommand(PipelineCommand):
    """Settings of one run. The recipe sets the defaults."""

    until: str | None = None
    """Last stage to run, such as refine; by default all stages run. Finished stages are kept."""


def run_pipeline(description: str) -> None:
    """Entry point of `jobs.pipeline`."""
    run_job(description, RunCommand, _run)


def _run(recipe: str, command: RunCommand) -> None:
    from slams_ray.stages import pipeline

    workspace = workspace_of(recipe, command)
    result = pipeline.run(command.config, workspace, recipe, command.until)
    print_summary(result.summary)
