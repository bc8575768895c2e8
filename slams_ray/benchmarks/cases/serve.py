"""Latency and throughput of the HTTP service, and what a killed replica costs its clients.

python -m jobs.benchmark serve
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from slams_ray.benchmarks.cases.command import BenchmarkCommand

if TYPE_CHECKING:
    from slams_ray.benchmarks.harness.measure import Row


@dataclass(frozen=True, kw_only=True)
class ServeCommand(BenchmarkCommand):
    """Measures on loopback, on photographs of a VOC tree or on the built-in set, with random
    weights."""

    voc_dir: str | None = None
    """VOC tree with masks. Without one, the built-in set is used."""
    max_side_px: int = 256
    """Largest longer side of the photographs."""
    num_images: int = 40
    """Number of requests in a round."""
    concurrency: tuple[int, ...] = (1, 4)
    """Numbers of clients that wait for an answer at the same time."""
    max_batch_size: int = 1
    """Most images that a replica answers together."""
    rounds: int = 3
    """Number of times each pair is measured."""


def measure(command: ServeCommand) -> "list[Row]":
    """Returns the rows of the case."""
    from slams_ray.benchmarks.harness import shards
    from slams_ray.benchmarks.measurements import serve

    with shards.scratch(command.workspace) as directory:
        data = shards.write_shards(
            shards.data_config(command.voc_dir, command.num_images, command.max_side_px),
            directory,
            1,
            command.num_images,
        )
        work = serve.open_work(data, directory, command.max_batch_size)
        return [
            *serve.speed_rows(work, command.concurrency, command.rounds),
            serve.kill_row(work, max(command.concurrency)),
        ]
