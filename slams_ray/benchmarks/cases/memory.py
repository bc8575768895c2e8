"""Peak memory of counting, of the walk and of evaluation as the number of images grows 16 times.

python -m jobs.benchmark memory --voc-dir VOC2012
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from slams_ray.benchmarks.cases.command import BenchmarkCommand

if TYPE_CHECKING:
    from slams_ray.benchmarks.harness.measure import Row


@dataclass(frozen=True, kw_only=True)
class MemoryCommand(BenchmarkCommand):
    """Measures on photographs of a VOC tree, or on the built-in set."""

    voc_dir: str | None = None
    """VOC tree with masks. Without one, the built-in set is used."""
    num_shards: int = 4
    """Number of shards of the smallest size."""
    images_per_shard: int = 8
    """Number of images in a shard."""
    factors: tuple[int, ...] = (1, 4, 16)
    """Multiples of the number of shards. The first one is the reference of the others."""


def measure(command: MemoryCommand) -> "list[Row]":
    """Returns the rows of the case."""
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
