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
    rounds: int = 5
    """Times each pair is measured, and images for the CPU seconds."""


def measure(command: RefinementCommand) -> "list[Row]":
    """Measures the rows of this case."""
    from slams_ray.benchmarks.measurements.refinement_cost import cost_rows
    from slams_ray.benchmarks.measurements.walk import walk_rows

    return [
        *walk_rows(command.num_classes, command.rounds),
        *cost_rows(command.cost_classes, command.photos_dir, command.rounds),
    ]
