"""Gain of precision, layout, compilation and batches on a GPU, and utilisation of the GPU.

python -m jobs.benchmark gpu --voc-dir VOC2012
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from slams_ray.benchmarks.cases.command import BenchmarkCommand
from slams_ray.recipes import RECIPES

if TYPE_CHECKING:
    from slams_ray.benchmarks.harness.measure import Row


@dataclass(frozen=True, kw_only=True)
class GpuCommand(BenchmarkCommand):
    """Measures the networks, crops and batches of a recipe, with random weights, on one GPU."""

    recipe: Literal["demo", "folder", "voc12", "coco14"] = "voc12"
    """Recipe whose settings are used."""
    device: Literal["gpu", "cpu"] = "gpu"
    """cpu measures the same work on the CPU, without utilisation."""
    trainings: tuple[
        Literal["encoder", "classifier", "activation", "affinity", "segmentation"], ...
    ] = ("encoder", "classifier", "activation", "affinity", "segmentation")
    """Trainings to measure."""
    voc_dir: str | None = None
    """VOC tree with masks. Without one, the built-in set is used."""
    num_images: int = 512
    """Number of images. Training and inference use them repeatedly."""
    images_per_shard: int = 32
    """Number of images in a shard."""
    max_side_px: int = 512
    """Largest longer side of stored photographs."""
    steps: int = 20
    """Number of optimisation steps in a timed window."""
    waves: int = 4
    """Length of the measured training through Ray. A wave is one round of all data-loading tasks.
    Two waves of warm-up come first."""
    data_loading_tasks: int = 16
    """Number of data-loading tasks of that training."""
    actors_per_gpu: tuple[int, ...] = (1, 2)
    """Numbers of inference actors that share the GPU; each number is a row."""
    compiled: bool = True
    """Also measure compiled networks, at the end. This needs a C++ compiler."""
    rounds: int = 5
    """Number of times each pair is measured."""


def measure(command: GpuCommand) -> "list[Row]":
    """Returns the rows of the case."""
    from slams_ray.benchmarks.harness import shards, training_loops, workers
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
        made = training_loops.make_trainings(config, data)
        trainings = {name: made[name] for name in command.trainings}
        models = inference.random_models(data, directory, config.classifier.backbone)
        work = inference.Inference(
            shards=data, models=models, config=config.inference, directory=directory
        )
        if command.device == "gpu":
            num_tasks = command.data_loading_tasks
            compute = replace(config.compute, device="gpu", data_loading_tasks=num_tasks)
            with workers.ray_connection():
                for name, one in trainings.items():
                    windows = gpu.fed_windows(one, num_tasks, command.steps, command.waves)
                    rows += gpu.training_busy_rows(name, one, windows, directory, compute)
                for number in command.actors_per_gpu:
                    rows += gpu.inference_busy_rows(work, device, number)
        rows += gpu.inference_rows(work, device, command.rounds)
        for name, one in trainings.items():
            rows += gpu.step_rows(name, one, *timed)
        if command.compiled:
            rows += [gpu.compiled_row(name, one, *timed) for name, one in trainings.items()]
    return rows
