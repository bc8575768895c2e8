"""Speed of the threshold curve, of shared lattices and of concurrent trials.

python -m jobs.benchmark threshold --output threshold.json
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from slams_ray.benchmarks.cases.command import BenchmarkCommand

if TYPE_CHECKING:
    from slams_ray.benchmarks.harness.measure import Row


@dataclass(frozen=True, kw_only=True)
class ThresholdCommand(BenchmarkCommand):
    """Measures on generated images of the size of VOC images."""

    num_images: int = 12
    """Number of images of the curve."""
    rounds: int = 7
    """Number of times each pair is measured."""
    num_trials: int = 2
    """Number of concurrent trials, with one core each."""


def measure(command: ThresholdCommand) -> "list[Row]":
    """Returns the rows of the case."""
    from slams_ray.benchmarks.measurements.threshold import curve_rows, lattice_row
    from slams_ray.benchmarks.measurements.trials import trial_row

    return [
        *curve_rows(command.num_images, command.rounds),
        lattice_row(8, command.rounds),
        trial_row(command.num_trials, num_slices=8, rounds=3),
    ]
