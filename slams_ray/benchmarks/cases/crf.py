"""How fast the compiled CRF is beside pydensecrf, as ratios, and how well both agree.

python -m jobs.benchmark crf --voc-dir VOC2012 --output crf.json
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from slams_ray.benchmarks.cases.command import BenchmarkCommand

if TYPE_CHECKING:
    from slams_ray.benchmarks.harness.measure import Row


@dataclass(frozen=True, kw_only=True)
class CrfCommand(BenchmarkCommand):
    """Work on photographs of a VOC tree, or on generated images of their size."""

    voc_dir: str | None = None
    """A VOC tree with masks; none: generated images."""
    num_images: int = 40
    """Images of the agreement."""
    num_timed: int = 3
    """How many of them each timed call refines."""
    num_workers: tuple[int, ...] = (2,)
    """Workers, one core each, that refine through Ray against as many plain processes;
    none leaves Ray out."""
    images_per_shard: int = 12
    """Images of a shard there; stages have 64 of photographs by default."""
    shards_per_worker: int = 6
    """Shards for each worker in each round."""
    rounds: int = 5
    """Times each pair is measured."""


def measure(command: CrfCommand) -> "list[Row]":
    from slams_ray.benchmarks.harness import pictures, shards, workers
    from slams_ray.benchmarks.measurements import crf, refine

    if command.voc_dir is None:
        shown = pictures.generated(command.num_images)
    else:
        shown = pictures.photographs(command.voc_dir, command.num_images)
    timed = shown[: command.num_timed]
    rows = [
        *crf.speed_rows(timed, command.rounds),
        *crf.sharing_rows(timed, 8, command.rounds),
        *crf.agreement_rows(shown),
    ]
    with shards.scratch(command.workspace) as directory:
        for number in command.num_workers:
            num_shards = number * command.shards_per_worker
            shard = shown[: command.images_per_shard]
            comparison = refine.refine_comparison(shard, num_shards, f"{directory}/{number}")
            rows.append(workers.comparison_row(comparison, number, command.rounds))
    return rows
