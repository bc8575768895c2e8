"""What mixed precision, layout, compilation and batches gain on a GPU, and how busy it is kept.

python -m jobs.benchmark_gpu --voc-dir VOC2012
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from jobs.benchmark import BenchmarkCommand, run_benchmark
from jobs.recipes import RECIPES

if TYPE_CHECKING:
    from slams_ray.benchmarks.measure import Row


@dataclass(frozen=True, kw_only=True)
class GpuCommand(BenchmarkCommand):
    """Networks, crops and batches of a recipe, with random weights, on one GPU of this machine."""

    recipe: Literal["demo", "folder", "voc12", "coco14"] = "voc12"
    """Whose settings are taken."""
    device: Literal["gpu", "cpu"] = "gpu"
    """cpu times the same work there, where it makes no difference to ask for mixed precision; how
    busy it is cannot be told."""
    voc_dir: str | None = None
    """A VOC tree with masks; none: the built-in set."""
    num_images: int = 512
    """Images that are trained on and inferred, again and again."""
    images_per_shard: int = 32
    """Rows of a shard."""
    max_side_px: int = 512
    """Photographs are stored with at most this many pixels on their longer side."""
    steps: int = 20
    """Optimisation steps of a timed window."""
    windows: int = 10
    """Windows over which a training through Ray is watched, after two that warm it up."""
    feed_tasks: int | None = None
    """Processes that feed that training; None as a stage takes them."""
    actors_per_gpu: tuple[int, ...] = (1, 2)
    """Inference actors that share the GPU, for each a row."""
    rounds: int = 5
    """Times each pair is measured."""


def _measure(command: GpuCommand) -> "list[Row]":
    from slams_ray.benchmarks import gpu, inference, shards, training, training_loops

    device = gpu.find_device(command.device)
    config = RECIPES[command.recipe]()
    windows = training.Windows(steps_each=command.steps, number=command.windows, num_warm=2)
    rows = []
    with shards.scratch(command.workspace) as directory:
        data = shards.write_shards(
            shards.data_config(command.voc_dir, command.num_images, command.max_side_px),
            directory,
            command.num_images // command.images_per_shard,
            command.images_per_shard,
        )
        trainings = training_loops.make_trainings(config, data)
        models = inference.random_models(data, directory, config.classifier.backbone)
        work = inference.Inference(
            shards=data, models=models, config=config.inference, directory=directory
        )
        for name, one in trainings.items():
            rows += gpu.step_rows(name, one, device, command.steps, command.rounds)
        rows += gpu.inference_rows(work, device, command.rounds)
        if command.device == "cpu":
            return rows
        for name, one in trainings.items():
            rows.append(
                gpu.training_busy_row(name, one, device, windows, directory, command.feed_tasks)
            )
        rows += [gpu.inference_busy_row(work, device, number) for number in command.actors_per_gpu]
    return rows


if __name__ == "__main__":
    run_benchmark(__doc__, GpuCommand, _measure)
