"""Refinements of one image: ratios against named alternatives, and CPU seconds at COCO's size.

python -m jobs.benchmark refinement
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from slams_ray.benchmarks.cases.command import BenchmarkCommand

if TYPE_CHECKING:
    from slams_ray.benchmarks.harness.measure import Row


@dataclass(frozen=True, kw_only=True)
class RefinementCommand(BenchmarkCommand):
    """Generated edges and maps on the grid of a 375 x 500 photograph; needs scipy."""

    num_classes: int = 2
    """Classes of the image in the ratios."""
    cost_classes: tuple[int, ...] = (1, 2, 4, 8)
    """Numbers of classes for the CPU seconds at 640 x 480. An empty list leaves these rows out."""
    photos_dir: str | None = None
    """Directory of JPEG photographs for the CPU seconds. Without one, images are generated."""
    num_workers: tuple[int, ...] = (2,)
    """Numbers of Ray workers that walk, with one core each, to compare with as many plain
    processes. An empty list leaves Ray out."""
    images_per_shard: int = 24
    """Number of images in a shard for Ray workers. The prepare stage stores 64 by default."""
    shards_per_worker: int = 6
    """Number of shards for each worker in a round."""
    rounds: int = 5
    """Times each pair is measured, and images for the CPU seconds."""


def measure(command: RefinementCommand) -> "list[Row]":
    """Measures the rows of this case."""
    from slams_ray.benchmarks.harness import pictures, shards, workers
    from slams_ray.benchmarks.measurements.refine import walk_comparison
    from slams_ray.benchmarks.measurements.refinement_cost import cost_rows
    from slams_ray.benchmarks.measurements.walk import walk_rows

    rows = [
        *walk_rows(command.num_classes, command.rounds),
        *cost_rows(command.cost_classes, command.photos_dir, command.rounds),
    ]
    with shards.scratch(command.workspace) as directory:
        shard = pictures.generated(command.images_per_shard)
        for number in command.num_workers:
            num_shards = number * command.shards_per_worker
            comparison = walk_comparison(shard, num_shards, f"{directory}/{number}")
            rows.append(workers.comparison_row(comparison, number, command.rounds))
    return rows
