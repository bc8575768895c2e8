"""Measure what each loss and each part of the training gains, with one setting changed at a time.

python -m jobs.ablate demo --seeds 0 1 2
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from slams_ray.cli.command import PipelineCommand, check_seed, run_job, workspace_of
from slams_ray.cli.tables import print_scores

if TYPE_CHECKING:
    from slams_ray.studies.comparison import Score


@dataclass(frozen=True, kw_only=True)
class AblateCommand(PipelineCommand):
    """Settings of the pipeline that the variants change."""

    seeds: tuple[int, ...] = (0,)
    """Random seeds; every variant is trained once with each."""
    variants: tuple[str, ...] = ()
    """Names of variants, such as "log form"; by default all variants."""
    max_concurrent: int | None = None
    """Number of concurrent trials; by default one per node, or as many as there are GPUs for."""

    def __post_init__(self) -> None:
        check_seed(self.config, self.seeds)


def _preview(command: AblateCommand) -> None:
    from slams_ray.studies.variants import choose

    print(f"\nrandom seeds {', '.join(map(str, command.seeds))}, each with:")
    for variant in choose(command.config, command.variants):
        print(variant)


def _ablate(recipe: str, command: AblateCommand) -> None:
    from slams_ray.studies import ablate
    from slams_ray.studies.variants import RECIPE

    workspace = workspace_of(recipe, command)

    def show(scores: "Sequence[Score]") -> None:
        print_scores(scores, RECIPE)
        print(f"rows and figure: {workspace}/ablate.json and ablate.png")

    ablate.run(
        command.config,
        workspace,
        recipe,
        command.seeds,
        command.variants,
        command.max_concurrent,
        show,
    )


def main() -> None:
    """Entry point of `slams ablate` and `jobs.ablate`."""
    run_job(__doc__, AblateCommand, _ablate, _preview)
