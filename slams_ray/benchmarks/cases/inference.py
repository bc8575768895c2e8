"""Activation inference through Ray against bare PyTorch loops and the field's scripts.

python -m jobs.benchmark inference --voc-dir VOC2012
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from slams_ray.benchmarks.cases.command import BenchmarkCommand

if TYPE_CHECKING:
    from slams_ray.benchmarks.harness.measure import Row


@dataclass(frozen=True, kw_only=True)
class InferenceCommand(BenchmarkCommand):
    """Measures on photographs of a VOC tree, or on the built-in set."""

    voc_dir: str | None = None
    """VOC tree with masks. Without one, the built-in set is used."""
    models: tuple[str, str] | None = None
    """Checkpoints (model.pt) of a CAM classifier and of an activation network. Without them,
    MobileNetV2 with random weights is used."""
    scales: tuple[float, ...] = (0.5, 1.0, 1.5, 2.0)
    """Scales of the image and of its mirror image."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of our networks. Networks as trained, which they are compared with, use float32."""
    cpu_networks: Literal["torch", "onnxruntime"] = "torch"
    """What computes our networks in float32, as `compute.cpu_networks`."""
    max_side_px: int = 256
    """Largest longer side of stored photographs."""
    num_workers: tuple[int, ...] = (1, 2)
    """Numbers of Ray workers, with one core each, to compare with as many bare loops. An empty list
    leaves Ray out."""
    images_per_shard: int = 12
    """Number of images in a shard. The prepare stage stores 64 by default."""
    shards_per_worker: int = 4
    """Number of shards for each worker in a round."""
    rounds: int = 3
    """Number of times each pair is measured."""


def measure(command: InferenceCommand) -> "list[Row]":
    """Returns the rows of the case."""
    from slams_ray.benchmarks.harness import shards, workers
    from slams_ray.benchmarks.measurements import inference
    from slams_ray.config import ActivationInferenceConfig

    with shards.scratch(command.workspace) as directory:
        num_shards = command.shards_per_worker * max(command.num_workers, default=1)
        num_images = num_shards * command.images_per_shard
        data = shards.write_shards(
            shards.data_config(
                command.voc_dir,
                num_images,
                command.max_side_px,
                inference.known_classes(command.models),
            ),
            directory,
            num_shards,
            command.images_per_shard,
        )
        models = inference.open_models(command.models, data, directory)
        config = ActivationInferenceConfig(scales=command.scales, precision=command.precision)
        work = inference.Inference(
            shards=data,
            models=models,
            config=config,
            directory=directory,
            cpu_networks=command.cpu_networks,
        )
        comparisons = [inference.inference_comparison(work, merged) for merged in (False, True)]
        return [
            *inference.loop_rows(work, command.rounds),
            *inference.storage_rows(work, trained=command.models is not None),
            *(
                workers.comparison_row(comparison, number, command.rounds)
                for number in command.num_workers
                for comparison in comparisons
            ),
        ]
