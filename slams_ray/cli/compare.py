"""Compare systems and refinements over random seeds, under one protocol, in one table and figure.

python -m jobs.compare demo --systems cam slams masks --refinements crf walk+crf --seeds 0 1 2
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from slams_ray.cli.command import PipelineCommand, check_seed, run_job, workspace_of
from slams_ray.cli.tables import print_scores
from slams_ray.config.pipeline import SystemName

if TYPE_CHECKING:
    from slams_ray.studies.comparison import Score
    from slams_ray.studies.rows import Rows


@dataclass(frozen=True, kw_only=True)
class CompareCommand(PipelineCommand):
    """Settings of the pipelines that are compared."""

    seeds: tuple[int, ...] = (0, 1, 2)
    """Random seeds; each one trains all systems, in a Ray task of its own."""
    systems: tuple[SystemName, ...] = ()
    """Systems to compare, the baseline first; they replace --system and --baselines. By default
    those of the recipe. masks gives the supervised upper bound of the segmentation network."""
    refinements: tuple[str, ...] = ()
    """Refinements to compare, steps joined by +, such as crf and walk+crf, or none. By default that
    of the recipe."""
    until: str = "evaluate"
    """Last stage to run; refine compares maps and labels without segmentation networks."""
    max_concurrent: int | None = None
    """Number of concurrent random seeds; by default one per node, or as many as there are GPUs for.
    """

    def __post_init__(self) -> None:
        check_seed(self.config, self.seeds)


def _rows(command: CompareCommand) -> "Rows":
    from slams_ray.studies.rows import Rows

    default = Rows.of(command.config, command.until)
    return Rows(
        systems=command.systems or default.systems,
        refinements=command.refinements or default.refinements,
        until=command.until,
    )


def _preview(command: CompareCommand) -> None:
    print(f"\nrandom seeds {', '.join(map(str, command.seeds))}, each with:")
    for refinement, config in _rows(command).pipelines(command.config):
        print(f"{config.system} {refinement}".rstrip())


def _compare(recipe: str, command: CompareCommand) -> None:
    from slams_ray.studies import compare
    from slams_ray.studies.scores import HEADLINES

    config, workspace = command.config, workspace_of(recipe, command)
    rows = _rows(command)

    def show(scores: "Sequence[Score]") -> None:
        print_scores(scores, rows.systems[0], HEADLINES)
        print(f"all rows and the figure: {workspace}/compare.json and compare.png")

    compare.run(config, workspace, recipe, command.seeds, rows, command.max_concurrent, show)


def main() -> None:
    """Entry point of `slams compare` and `jobs.compare`."""
    run_job(__doc__, CompareCommand, _compare, _preview)
