"""Activation inference through Ray against bare PyTorch loops, and against the field's practice.

python -m jobs.benchmark inference --voc-dir VOC2012
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from slams_ray.benchmarks.cases.command import BenchmarkCommand

if TYPE_CHECKING:
    from slams_ray.benchmarks.harness.measure import Row


@dataclass(frozen=True, kw_only=True)
class InferenceCommand(BenchmarkCommand):
    """Work on photographs of a VOC tree, or on the built-in set."""

    voc_dir: str | None = None
    """A VOC tree with masks; none: the built-in set."""
    models: tuple[str, str] | None = None
    """Checkpoints of a CAM classifier and an activation network, model.pt of the stages that train
    them; none: MobileNetV2 with random weights."""
    scales: tuple[float, ...] = (0.5, 1.0, 1.5, 2.0)
    """Image scales, each with its mirror image."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """What our networks compute in; those they are compared with as trained compute in float32."""
    max_side_px: int = 256
    """Photographs are stored with at most this many pixels on their longer side."""
    num_workers: tuple[int, ...] = (1, 2)
    """Workers, one core each, that run against as many bare loops; none leaves Ray out."""
    images_per_shard: int = 12
    """Images of a shard; stages have 64 of photographs by default."""
    shards_per_worker: int = 4
    """Shards for each worker in each round."""
    rounds: int = 3
    """Times each pair is measured."""


def measure(command: InferenceCommand) -> "list[Row]":
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
        work = inference.Inference(shards=data, models=models, config=config, directory=directory)
        comparisons = [inference.inference_comparison(work, made) for made in (False, True)]
        return [
            *inference.loop_rows(work, command.rounds),
            *inference.storage_rows(work, trained=command.models is not None),
            *(
                workers.comparison_row(comparison, number, command.rounds)
                for number in command.num_workers
                for comparison in comparisons
            ),
        ]
