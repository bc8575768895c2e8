"""Compare CAM and SLAMs over random seeds, with one protocol, in one table and one figure.

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
    """Random seeds; each one trains all systems, in a Ray task of its own."""
    max_concurrent: int | None = None
    """Number of concurrent random seeds; by default one per node, or as many as there are GPUs for.
    """


def _compare(recipe: str, command: CompareCommand) -> None:
    from slams_ray.studies import compare

    workspace = workspace_of(recipe, command)

    def show(scores: "Sequence[Score]") -> None:
        print_scores(scores, "cam")
        print(f"epochs: {compare.budget(command.config)}")
        print(f"rows and figure: {workspace}/compare.json and compare.png")

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
