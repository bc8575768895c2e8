"""How fast the threshold curve and the shared lattice are, as ratios.

python -m jobs.benchmark threshold --output threshold.json
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from slams_ray.benchmarks.cases.command import BenchmarkCommand

if TYPE_CHECKING:
    from slams_ray.benchmarks.harness.measure import Row


@dataclass(frozen=True, kw_only=True)
class ThresholdCommand(BenchmarkCommand):
    """Work on generated images of the size of VOC's."""

    num_images: int = 12
    """Images of the curve."""
    rounds: int = 7
    """Times each pair is measured."""
    num_trials: int = 2
    """Trials side by side, a core each."""


def measure(command: ThresholdCommand) -> "list[Row]":
    from slams_ray.benchmarks.measurements.threshold import curve_rows, lattice_row
    from slams_ray.benchmarks.measurements.trials import trial_row

    return [
        *curve_rows(command.num_images, command.rounds),
        lattice_row(8, command.rounds),
        trial_row(command.num_trials, num_slices=8, rounds=3),
    ]
