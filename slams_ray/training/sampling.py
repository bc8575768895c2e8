"""The order in which training visits images: the same for any number of workers.

A global batch of B images takes one image from each of B streams. In pass after pass the read units
of all shards (row groups, or smaller ones where there are fewer row groups than streams) are
permuted and queued; a stream that has used up its unit takes the next one from the queue. So every
image is visited once per pass, whatever the batch size and the number of shards. Each of N workers
owns consecutive streams and reads only their units, yet the N workers together form, step for step,
the batches that one worker would.
"""

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from slams_ray.errors import ConfigError

ROWS_PER_GROUP = 8
"""Rows per Parquet row group of shards that are trained on."""
STEPS_PER_LOADING_TASK = 8
"""Steps that one data-loading task prepares."""


@dataclass(frozen=True, kw_only=True)
class LoadingTask:
    """The samples of one worker for a few consecutive steps.

    Attributes:
        first_step: optimisation step of the first sample of every stream.
        streams: numbers of the worker's streams within the global batch.
        rows: rows[i][j] is (shard name, row) of stream streams[i] at step first_step + j.
    """

    first_step: int
    streams: tuple[int, ...]
    rows: tuple[tuple[tuple[str, int], ...], ...]


@dataclass(frozen=True, kw_only=True)
class _Unit:
    """Consecutive rows of one shard."""

    shard: str
    rows: range


def own_streams(batch_size: int, rank: int, num_workers: int) -> range:
    """The streams of a worker: as many as its images in a global batch.

    Raises:
        ConfigError: there are more workers than images in a batch.
    """
    if num_workers > batch_size:
        raise ConfigError(
            f"{num_workers} training workers cannot share a batch of {batch_size} images: take "
            "fewer workers (compute.train_workers) or a larger training.batch_size"
        )
    return range(rank * batch_size // num_workers, (rank + 1) * batch_size // num_workers)


def num_steps(epochs: float, num_images: int, batch_size: int) -> int:
    """Optimisation steps of a training, at least 1."""
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
    """The loading_tasks worker `rank` reads for steps first_step <= s < last_step, in order.

    Args:
        shard_rows: (name, rows) of every shard that has rows.
    """
    own = own_streams(batch_size, rank, num_workers)
    queue = _queue(_units(shard_rows, batch_size), seed)
    # (step at which the stream needs another unit, stream): ties go to the lower stream.
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
    """(step, stream, shard name, row) of each sample of a loading task, in training order."""
    for offset in range(len(loading_task.rows[0])):
        for stream, rows in zip(loading_task.streams, loading_task.rows, strict=True):
            yield loading_task.first_step + offset, stream, *rows[offset]


def _units(shard_rows: Sequence[tuple[str, int]], batch_size: int) -> list[_Unit]:
    """Read units: row groups, cut where there would be fewer of them than streams."""
    num_rows = sum(rows for _, rows in shard_rows)
    size = min(max(num_rows // batch_size, 1), ROWS_PER_GROUP)
    return [
        _Unit(shard=name, rows=range(low, min(low + size, group + ROWS_PER_GROUP, rows)))
        for name, rows in shard_rows
        for group in range(0, rows, ROWS_PER_GROUP)
        for low in range(group, min(group + ROWS_PER_GROUP, rows), size)
    ]


def _queue(units: Sequence[_Unit], seed: int) -> Iterator[list[tuple[str, int]]]:
    """(shard, row) pairs of one unit after another, permuted anew in every pass, without end."""
    pass_number = 0
    while True:
        rng = np.random.default_rng((seed, pass_number))
        for index in rng.permutation(len(units)):
            unit = units[index]
            yield [(unit.shard, int(row)) for row in rng.permutation(unit.rows)]
        pass_number += 1
