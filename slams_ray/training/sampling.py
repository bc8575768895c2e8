"""Order in which training visits images, the same for any number of workers.

A global batch of B images takes one image from each of B streams. Every pass permutes the read
units of all shards and puts them into a queue; a read unit is a row group, or part of one if there
are fewer row groups than streams. A stream that has used up its read unit takes the next one from
the queue, so every image is visited once per pass. Each of N workers owns consecutive streams and
reads only their units, and together they form the same batches as one worker.
"""

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from slams_ray.errors import ConfigError

ROWS_PER_GROUP = 8
"""Rows per Parquet row group of training shards."""
STEPS_PER_LOADING_TASK = 8
"""Number of steps that one data-loading task prepares."""


@dataclass(frozen=True, kw_only=True)
class LoadingTask:
    """Samples of one worker for a few consecutive steps.

    Attributes:
        first_step: optimisation step of the first sample of every stream.
        streams: indices of the worker's streams within the global batch.
        rows: rows[i][j] is (shard name, row) of stream streams[i] at step first_step + j.
    """

    first_step: int
    streams: tuple[int, ...]
    rows: tuple[tuple[tuple[str, int], ...], ...]


@dataclass(frozen=True, kw_only=True)
class _Unit:
    """A read unit: consecutive rows of one shard."""

    shard: str
    rows: range


def own_streams(batch_size: int, rank: int, num_workers: int) -> range:
    """Returns the streams of a worker, one for each of its images in a global batch.

    Raises:
        ConfigError: there are more workers than images in a batch.
    """
    if num_workers > batch_size:
        raise ConfigError(
            f"{num_workers} training workers cannot share a batch of {batch_size} images: use "
            "fewer workers (compute.train_workers) or a larger training.batch_size"
        )
    return range(rank * batch_size // num_workers, (rank + 1) * batch_size // num_workers)


def num_steps(epochs: float, num_images: int, batch_size: int) -> int:
    """Number of optimisation steps of a training, at least 1."""
    return max(1, round(epochs * num_images / batch_size))


def plan_loading(
    shard_rows: Sequence[tuple[str, int]],
    *,
    batch_size: int,
    rank: int,
    num_workers: int,
    first_step: int,
    last_step: int,
    seed: int,
) -> Iterator[LoadingTask]:
    """Yields the loading tasks of worker `rank` for steps first_step <= s < last_step, in order.

    Args:
        shard_rows: (name, number of rows) of every shard that is not empty.
    """
    own = own_streams(batch_size, rank, num_workers)
    queue = _queue(_units(shard_rows, batch_size), seed)
    # (step at which the stream needs another unit, stream): on a tie the lower stream is first.
    needs = [(0, stream) for stream in range(batch_size)]
    planned: dict[int, list[tuple[str, int]]] = {stream: [] for stream in own}
    for begin in range(0, last_step, STEPS_PER_LOADING_TASK):
        end = min(begin + STEPS_PER_LOADING_TASK, last_step)
        while needs[0][0] < end:
            step, stream = needs[0]
            rows = next(queue)
            if stream in planned:
                planned[stream].extend(rows)
            heapq.heapreplace(needs, (step + len(rows), stream))
        skipped = max(first_step - begin, 0)
        if begin + skipped < end:
            yield LoadingTask(
                first_step=begin + skipped,
                streams=tuple(own),
                rows=tuple(tuple(planned[stream][skipped : end - begin]) for stream in own),
            )
        for rows in planned.values():
            del rows[: end - begin]


def sample_order(loading_task: LoadingTask) -> Iterator[tuple[int, int, str, int]]:
    """Yields (step, stream, shard name, row) of a loading task's samples, in training order."""
    for offset in range(len(loading_task.rows[0])):
        for stream, rows in zip(loading_task.streams, loading_task.rows, strict=True):
            yield loading_task.first_step + offset, stream, *rows[offset]


def _units(shard_rows: Sequence[tuple[str, int]], batch_size: int) -> list[_Unit]:
    """Returns the read units: row groups, split if there are fewer of them than streams."""
    num_rows = sum(rows for _, rows in shard_rows)
    size = min(max(num_rows // batch_size, 1), ROWS_PER_GROUP)
    return [
        _Unit(shard=name, rows=range(low, min(low + size, group + ROWS_PER_GROUP, rows)))
        for name, rows in shard_rows
        for group in range(0, rows, ROWS_PER_GROUP)
        for low in range(group, min(group + ROWS_PER_GROUP, rows), size)
    ]


def _queue(units: Sequence[_Unit], seed: int) -> Iterator[list[tuple[str, int]]]:
    """Yields the (shard, row) pairs of each unit without end, in a new random order every pass."""
    pass_number = 0
    while True:
        rng = np.random.default_rng((seed, pass_number))
        for index in rng.permutation(len(units)):
            unit = units[index]
            yield [(unit.shard, int(row)) for row in rng.permutation(unit.rows)]
        pass_number += 1
