"""In which order images are trained on: the same for any number of workers.

A global batch takes B / L images from each of L lanes. In pass after pass the shards are permuted
and dealt to the lanes, so the L shards at hand, a block, change together. Each of N workers owns
consecutive lanes, equally many where N divides L, and reads only their shards, yet the N workers
together form, step for step, the batches one worker would. Within a shard whole row groups are
permuted, then the rows in each, so that a chunk of a few steps touches one row group or two per
lane and not the whole shard.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from slams_ray.errors import ConfigError

ROWS_PER_GROUP = 8
"""Rows per Parquet row group of shards that are trained on."""


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """Consecutive samples of one worker, in order.

    Attributes:
        block: number of the block; with lane and position it seeds a sample's augmentation.
        shards: name of the shard of each lane of this worker.
        lanes: global lane numbers of those shards.
        rows: rows[lane][i] is the row of sample i of that lane.
        start: position of the first sample within the block.
    """

    block: int
    shards: tuple[str, ...]
    lanes: tuple[int, ...]
    rows: tuple[tuple[int, ...], ...]
    start: int


def num_lanes(batch_size: int, num_shards: int) -> int:
    """The largest divisor of the batch size that the number of shards allows.

    It does not depend on the number of workers, which share the lanes.
    """
    return max(d for d in range(1, batch_size + 1) if batch_size % d == 0 and d <= num_shards)


def own_lanes(lanes: int, rank: int, num_workers: int) -> range:
    """The lanes of a worker.

    Raises:
        ConfigError: there are fewer lanes than workers.
    """
    if num_workers > lanes:
        raise ConfigError(
            f"{num_workers} training workers cannot share {lanes} lanes: take fewer workers, a "
            "larger batch size, or lower data.images_per_shard to get more shards"
        )
    return range(rank * lanes // num_workers, (rank + 1) * lanes // num_workers)


def batch_share(batch_size: int, num_shards: int, rank: int, num_workers: int) -> int:
    """Images of a global batch that a worker brings."""
    lanes = num_lanes(batch_size, num_shards)
    return batch_size // lanes * len(own_lanes(lanes, rank, num_workers))


def num_steps(epochs: float, num_images: int, batch_size: int) -> int:
    """Optimisation steps of a training, at least 1."""
    return max(1, round(epochs * num_images / batch_size))


def plan_chunks(
    shard_rows: Sequence[tuple[str, int]],
    *,
    batch_size: int,
    rank: int,
    num_workers: int,
    first_step: int,
    last_step: int,
    seed: int,
) -> Iterator[Chunk]:
    """The chunks worker `rank` reads for steps first_step <= s < last_step, in order.

    Args:
        shard_rows: (name, rows) of every shard that has rows.
    """
    lanes = num_lanes(batch_size, len(shard_rows))
    own = own_lanes(lanes, rank, num_workers)
    per_step = batch_size // lanes
    first, last = first_step * per_step, last_step * per_step
    offset = 0
    for block, members in enumerate(_blocks(shard_rows, lanes, seed)):
        if offset >= last:
            return
        # Lanes must stay in step for any number of workers, so a block is as long as its shortest
        # shard; shards are balanced when written, and another pass shuffles other rows to the end.
        length = min(rows for _, rows in members)
        start, stop = max(first - offset, 0), min(last - offset, length)
        if start < stop:
            orders = [_row_order(members[lane][1], (seed, block, lane)) for lane in own]
            for begin in range(start - start % ROWS_PER_GROUP, stop, ROWS_PER_GROUP):
                span = slice(max(begin, start), min(begin + ROWS_PER_GROUP, stop))
                yield Chunk(
                    block=block,
                    shards=tuple(members[lane][0] for lane in own),
                    lanes=tuple(own),
                    rows=tuple(tuple(int(r) for r in order[span]) for order in orders),
                    start=span.start,
                )
        offset += length


def _blocks(
    shard_rows: Sequence[tuple[str, int]], lanes: int, seed: int
) -> Iterator[list[tuple[str, int]]]:
    """Endless groups of `lanes` shards, dealt from one permutation of all shards after another."""
    waiting: list[tuple[str, int]] = []
    pass_number = 0
    while True:
        order = np.random.default_rng((seed, pass_number)).permutation(len(shard_rows))
        waiting.extend(shard_rows[i] for i in order)
        while len(waiting) >= lanes:
            yield waiting[:lanes]
            waiting = waiting[lanes:]
        pass_number += 1


def _row_order(num_rows: int, seed: tuple[int, ...]) -> np.ndarray:
    """A permutation of 0..num_rows - 1 that keeps row groups together."""
    rng = np.random.default_rng(seed)
    groups = np.array_split(
        np.arange(num_rows), np.arange(ROWS_PER_GROUP, num_rows, ROWS_PER_GROUP)
    )
    return np.concatenate([rng.permutation(groups[g]) for g in rng.permutation(len(groups))])


def sample_order(chunk: Chunk) -> Iterator[tuple[int, int, int]]:
    """(lane in the chunk, row of its shard, position in the block) of each sample."""
    for i in range(len(chunk.rows[0])):
        for lane, rows in enumerate(chunk.rows):
            yield lane, rows[i], chunk.start + i
