"""Trainings of a recipe against bare PyTorch loops with a DataLoader.

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
    """Measures the networks, crops and batches of a recipe, with random weights."""

    recipe: Literal["demo", "folder", "voc12", "coco14"] = "demo"
    """Recipe whose settings are used."""
    voc_dir: str | None = None
    """VOC tree with masks. Without one, the built-in set is used."""
    num_images: int = 320
    """Number of images. Trainings use them repeatedly."""
    images_per_shard: int = 40
    """Number of images in a shard."""
    max_side_px: int = 512
    """Largest longer side of stored photographs."""
    steps: int = 10
    """Number of optimisation steps in a timed window."""
    windows: int = 4
    """Number of measured windows of a training through Ray. A warm-up window comes first."""
    amp: bool = True
    """Uses mixed precision where the CPU multiplies bfloat16."""
    rounds: int = 5
    """Number of times each pair in one process is measured."""
    ray_rounds: int = 2
    """Number of times each pair through Ray is measured; 0 leaves Ray out."""


def measure(command: TrainingCommand) -> "list[Row]":
    """Returns the rows of the case."""
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
        if not command.amp:
            trainings = {n: t.without_amp() for n, t in trainings.items()}
        for name, one in trainings.items():
            rows.append(training.step_row(name, one, command.steps, command.rounds))
            if one.is_mixed("cpu"):
                rows.append(training.precision_row(name, one, command.steps, command.rounds))
        activation, classifier = trainings["activation"], trainings["classifier"]
        rows.append(training.foreground_row(activation, command.steps, command.rounds))
        rows.append(training.activation_row(activation, classifier, command.steps, command.rounds))
        for name, one in trainings.items():
            if command.ray_rounds:
                rows.append(
                    training.ray_row(
                        name,
                        one,
                        windows,
                        directory,
                        compute=config.compute,
                        rounds=command.ray_rounds,
                    )
                )
    return rows
