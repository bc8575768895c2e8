"""What mixed precision, layout, compilation and batches gain on a GPU, and how busy it is kept.

python -m jobs.benchmark gpu --voc-dir VOC2012
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from slams_ray.benchmarks.cases.command import BenchmarkCommand
from slams_ray.recipes import RECIPES

if TYPE_CHECKING:
    from slams_ray.benchmarks.harness.measure import Row


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
    waves: int = 4
    """Times that all feeders' batches are taken while a training through Ray is watched, after two
    times that warm it up."""
    data_loading_tasks: int = 16
    """Processes that feed that training."""
    actors_per_gpu: tuple[int, ...] = (1, 2)
    """Inference actors that share the GPU, for each a row."""
    compiled: bool = True
    """Compile the networks too and time them, last of all; wants a C++ compiler."""
    rounds: int = 5
    """Times each pair is measured."""


def measure(command: GpuCommand) -> "list[Row]":
    from slams_ray.benchmarks.harness import shards, training_loops
    from slams_ray.benchmarks.measurements import gpu, inference

    device = gpu.find_device(command.device)
    config = RECIPES[command.recipe]()
    timed = device, command.steps, command.rounds
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
        if command.device == "gpu":
            feeders = command.data_loading_tasks
            for name, one in trainings.items():
                windows = gpu.fed_windows(one, feeders, command.steps, command.waves)
                rows += gpu.training_busy_rows(name, one, device, windows, directory, feeders)
            for number in command.actors_per_gpu:
                rows += gpu.inference_busy_rows(work, device, number)
        rows += gpu.inference_rows(work, device, command.rounds)
        for name, one in trainings.items():
            rows += gpu.step_rows(name, one, *timed)
        if command.compiled:
            rows += [gpu.compiled_row(name, one, *timed) for name, one in trainings.items()]
    return rows
