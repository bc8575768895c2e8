"""Run the pipeline from image-level labels to mIoU: all stages, or those up to a given one.

python -m jobs.pipeline demo

python -m jobs.pipeline voc12 --data.root /data/VOC2012 --compute.train-workers 4

python -m jobs.pipeline demo --until refine

--config FILE starts from the settings of a YAML file, which may also name the recipe.
"""

from dataclasses import dataclass

from slams_ray.cli.command import PipelineCommand, run_job, workspace_of
from slams_ray.cli.tables import print_summary


@dataclass(frozen=True, kw_only=True)
class RunCommand(PipelineCommand):
    """Settings of one run. The recipe sets the defaults."""

    until: str | None = None
    """Last stage to run, such as refine or search_threshold; docs/stages.md has all. By default all
    stages run. Finished stages are kept."""


def main() -> None:
    """Entry point of `slams pipeline` and `jobs.pipeline`."""
    run_job(__doc__, RunCommand, _run)


def _run(recipe: str, command: RunCommand) -> None:
    from slams_ray.stages import pipeline

    workspace = workspace_of(recipe, command)
    result = pipeline.run(command.config, workspace, recipe, command.until)
    print_summary(result.summary)
