"""What each loss and each part of the training pays: one setting changed at a time.

python -m jobs.ablate demo --seeds 0 1 2
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from slams_ray.cli.command import PipelineCommand, run_job, workspace_of
from slams_ray.cli.tables import print_scores

if TYPE_CHECKING:
    from slams_ray.studies.comparison import Score


@dataclass(frozen=True, kw_only=True)
class AblateCommand(PipelineCommand):
    """Settings of the pipeline whose parts are changed."""

    seeds: tuple[int, ...] = (0,)
    """Every variant is trained once per seed."""
    variants: tuple[str, ...] = ()
    """Names of variants, such as "log form"; none means all."""
    max_concurrent: int | None = None
    """Trials at the same time; by default one per node, or as many as the GPUs serve."""


def _ablate(recipe: str, command: AblateCommand) -> None:
    from slams_ray.studies import ablate

    workspace = workspace_of(recipe, command)

    def show(scores: "Sequence[Score]") -> None:
        print_scores(scores, ablate.RECIPE)
        print(f"rows in {workspace}/ablate.json, figure beside it")

    ablate.run(
        command.config,
        workspace,
        recipe,
        command.seeds,
        command.variants,
        command.max_concurrent,
        show,
    )


if __name__ == "__main__":
    run_job(__doc__, AblateCommand, _ablate)
