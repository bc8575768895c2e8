"""Speed of our CRFs against pydensecrf, and agreement with it.

python -m jobs.benchmark crf --voc-dir VOC2012 --output crf.json
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from slams_ray.benchmarks.cases.command import BenchmarkCommand

if TYPE_CHECKING:
    from slams_ray.benchmarks.harness.measure import Row


@dataclass(frozen=True, kw_only=True)
class CrfCommand(BenchmarkCommand):
    """Measures on photographs of a VOC tree, or on generated images of the same size."""

    voc_dir: str | None = None
    """VOC tree with masks. Without one, images are generated."""
    num_images: int = 40
    """Number of images to measure agreement on."""
    num_timed: int = 3
    """Number of these images that a timed call refines."""
    num_workers: tuple[int, ...] = (2,)
    """Numbers of Ray workers, with one core each, to compare with as many plain processes. An empty
    list leaves Ray out."""
    images_per_shard: int = 12
    """Number of images in a shard for Ray workers. The prepare stage stores 64 by default."""
    shards_per_worker: int = 6
    """Number of shards for each worker in a round."""
    rounds: int = 5
    """Number of times each pair is measured."""


def measure(command: CrfCommand) -> "list[Row]":
    """Returns the rows of the case."""
    from slams_ray.benchmarks.harness import pictures, shards, workers
    from slams_ray.benchmarks.measurements import crf, refine

    if command.voc_dir is None:
        chosen = pictures.generated(command.num_images)
    else:
        chosen = pictures.photographs(command.voc_dir, command.num_images)
    timed = chosen[: command.num_timed]
    rows = [
        *crf.speed_rows(timed, command.rounds),
        *crf.sharing_rows(timed, 8, command.rounds),
        *crf.agreement_rows(chosen),
    ]
    with shards.scratch(command.workspace) as directory:
        for number in command.num_workers:
            num_shards = number * command.shards_per_worker
            shard = chosen[: command.images_per_shard]
            comparison = refine.refine_comparison(shard, num_shards, f"{directory}/{number}")
            rows.append(workers.comparison_row(comparison, number, command.rounds))
    return rows
