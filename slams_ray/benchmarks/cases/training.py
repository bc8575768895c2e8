"""The trainings of a recipe against bare PyTorch loops with a DataLoader.

python -m jobs.benchmark training --recipe demo
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from slams_ray.benchmarks.cases.command import BenchmarkCommand
from slams_ray.recipes import RECIPES

if TYPE_CHECKING:
    from slams_ray.benchmarks.harness.measure import Row


@dataclass(frozen=True, kw_only=True)
class TrainingCommand(BenchmarkCommand):
    """Networks, crops and batches of a recipe, with random weights."""

    recipe: Literal["demo", "folder", "voc12", "coco14"] = "demo"
    """Whose settings are taken."""
    voc_dir: str | None = None
    """A VOC tree with masks; none: the built-in set."""
    num_images: int = 320
    """Images that are trained on, again and again."""
    images_per_shard: int = 40
    """Rows of a shard."""
    max_side_px: int = 512
    """Photographs are stored with at most this many pixels on their longer side."""
    steps: int = 10
    """Optimisation steps of a timed window."""
    windows: int = 4
    """Windows of a training through Ray, after one that warms it up."""
    rounds: int = 5
    """Times the pair in one process is measured."""
    ray_rounds: int = 2
    """Times the pair through Ray is measured; 0 leaves it out."""


def measure(command: TrainingCommand) -> "list[Row]":
    from slams_ray.benchmarks.harness import shards, training_loops
    from slams_ray.benchmarks.measurements import training

    config = RECIPES[command.recipe]()
    windows = training.Windows(steps_each=command.steps, number=command.windows)
    rows = []
    with shards.scratch(command.workspace) as directory:
        data = shards.write_shards(
            shards.data_config(command.voc_dir, command.num_images, command.max_side_px),
            directory,
            command.num_images // command.images_per_shard,
            command.images_per_shard,
        )
        trainings = training_loops.make_trainings(config, data)
        for name, one in trainings.items():
            rows.append(training.step_row(name, one, command.steps, command.rounds))
        rows.append(training.foreground_row(trainings["activation"], command.steps, command.rounds))
        for name, one in trainings.items():
            if command.ray_rounds:
                rows.append(
                    training.ray_row(
                        name,
                        one,
                        windows,
                        directory,
                        num_data_loading_tasks=config.compute.data_loading_tasks,
                        rounds=command.ray_rounds,
                    )
                )
    return rows
