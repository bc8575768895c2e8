"""Peak memory of the count curve and of evaluation while the number of images grows 16 times.

python -m jobs.benchmark memory --voc-dir VOC2012
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from slams_ray.benchmarks.cases.command import BenchmarkCommand

if TYPE_CHECKING:
    from slams_ray.benchmarks.harness.measure import Row


@dataclass(frozen=True, kw_only=True)
class MemoryCommand(BenchmarkCommand):
    """Work on photographs of a VOC tree, or on the built-in set."""

    voc_dir: str | None = None
    """A VOC tree with masks; none: the built-in set."""
    num_shards: int = 4
    """Shards at the smallest size."""
    images_per_shard: int = 8
    """Images of a shard."""
    factors: tuple[int, ...] = (1, 4, 16)
    """How many times as many shards are mapped; all are compared with the first."""


def measure(command: MemoryCommand) -> "list[Row]":
    from slams_ray.benchmarks.harness import shards
    from slams_ray.benchmarks.measurements import memory

    with shards.scratch(command.workspace) as directory:
        num_images = command.num_shards * command.images_per_shard
        data = shards.write_shards(
            shards.data_config(command.voc_dir, num_images, None),
            directory,
            command.num_shards,
            command.images_per_shard,
        )
        return memory.memory_rows(data, command.factors)
