"""Prediction of many photographs through Ray against bare PyTorch loops, and its peak memory.

python -m jobs.benchmark predict
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from slams_ray.benchmarks.cases.command import BenchmarkCommand

if TYPE_CHECKING:
    from slams_ray.benchmarks.harness.measure import Row


@dataclass(frozen=True, kw_only=True)
class PredictCommand(BenchmarkCommand):
    """Measures on photographs of a VOC tree, or on the built-in set, with random weights."""

    voc_dir: str | None = None
    """VOC tree with masks. Without one, the built-in set is used."""
    max_side_px: int = 256
    """Largest longer side of the photographs."""
    num_workers: tuple[int, ...] = (1, 2)
    """Numbers of Ray workers, with one core each, to compare with as many bare loops."""
    images_per_shard: int = 12
    """Number of photographs in a shard. jobs.predict takes 64 by default."""
    shards_per_worker: int = 8
    """Number of shards for each worker in a round."""
    rounds: int = 3
    """Number of times each pair is measured."""
    factors: tuple[int, ...] = (1, 4, 16)
    """Multiples of the number of photographs whose peak memory is measured. The first one is the
    reference of the others."""


def measure(command: PredictCommand) -> "list[Row]":
    """Returns the rows of the case."""
    from slams_ray.benchmarks.harness import shards, workers
    from slams_ray.benchmarks.measurements import predict

    with shards.scratch(command.workspace) as directory:
        num_shards = command.shards_per_worker * max(command.num_workers, default=1)
        num_images = num_shards * command.images_per_shard
        data = shards.write_shards(
            shards.data_config(command.voc_dir, num_images, command.max_side_px),
            directory,
            num_shards,
            command.images_per_shard,
        )
        model = predict.write_network(data.description, directory)
        comparison = predict.predict_comparison(data, model, directory)
        return [
            *(
                workers.comparison_row(comparison, number, command.rounds)
                for number in command.num_workers
            ),
            *predict.memory_rows(data, model, directory, command.factors),
        ]
