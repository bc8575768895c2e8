"""CAM beside SLAMs over seeds: one protocol, one table, one figure.

python -m jobs.compare demo --seeds 0 1 2
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from slams_ray.cli.command import PipelineCommand, run_job, workspace_of
from slams_ray.cli.tables import print_scores

if TYPE_CHECKING:
    from slams_ray.studies.comparison import Score


@dataclass(frozen=True, kw_only=True)
class CompareCommand(PipelineCommand):
    """Settings of the pipelines that are compared."""

    seeds: tuple[int, ...] = (0, 1, 2)
    """One pair of pipelines per seed, each seed in a Ray task."""
    max_concurrent: int | None = None
    """Seeds at the same time; by default one per node, or as many as the GPUs serve."""


def _compare(recipe: str, command: CompareCommand) -> None:
    from slams_ray.studies import compare

    workspace = workspace_of(recipe, command)

    def show(scores: "Sequence[Score]") -> None:
        print_scores(scores, "cam")
        print(f"epochs: {compare.budget(command.config)}")
        print(f"rows in {workspace}/compare.json, figure beside it")

    compare.run(
        command.config,
        workspace,
        recipe,
        command.seeds,
        command.max_concurrent,
        show,
    )


if __name__ == "__main__":
    run_job(__doc__, CompareCommand, _compare)
