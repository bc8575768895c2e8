"""From a planned chunk to training samples, and from shards to evaluation rows."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from slams_ray import storage
from slams_ray.core.sampling import ROWS_PER_GROUP, Chunk, sample_order
from slams_ray.errors import ArtifactError
from slams_ray.tasks.training_module import Row, Task


@dataclass(frozen=True, kw_only=True)
class ShardColumns:
    """Columns to read from the shards of a directory."""

    directory: str
    columns: tuple[str, ...]


def read_chunk(
    chunk: Chunk, sources: Sequence[ShardColumns], task: Task, seed: int
) -> dict[str, np.ndarray]:
    """Augmented samples of a chunk, stacked: name -> (samples, ...) array.

    A sample depends on its image, its place in the plan and the seed, on nothing else: a restarted
    or differently divided training sees the same pixels.
    """
    groups = [sorted({row // ROWS_PER_GROUP for row in rows}) for rows in chunk.rows]
    tables = [
        read_rows(name, sources, wanted) for name, wanted in zip(chunk.shards, groups, strict=True)
    ]
    samples = []
    for lane, row, position in sample_order(chunk):
        key = (seed, chunk.block, chunk.lanes[lane], position)
        companion = _companion(tables[lane], row, np.random.default_rng((*key, 1)))
        samples.append(task.sample(tables[lane][row], np.random.default_rng(key), companion))
    return {name: np.stack([s[name] for s in samples]) for name in samples[0]}


def _companion(table: Mapping[int, Row], row: int, rng: np.random.Generator) -> Row | None:
    """Another row of the same row group: that much is read however the training is divided."""
    group = range(row - row % ROWS_PER_GROUP, row - row % ROWS_PER_GROUP + ROWS_PER_GROUP)
    others = [number for number in group if number in table and number != row]
    return table[others[rng.integers(len(others))]] if others else None


def read_rows(
    name: str, sources: Sequence[ShardColumns], groups: Sequence[int] | None = None
) -> dict[int, Row]:
    """Row number -> row, of the shard of that name in every source, columns side by side.

    Args:
        groups: row groups to read; None reads all.
    """
    merged: dict[int, dict[str, object]] = {}
    for source in sources:
        path = storage.join(source.directory, name)
        columns = ["image_id", *source.columns]
        for number, row in storage.read_row_groups(path, columns, groups):
            known = merged.setdefault(number, {})
            if known.get("image_id", row["image_id"]) != row["image_id"]:
                raise ArtifactError(
                    f"row {number} of shard {path} is image {row['image_id']}, expected "
                    f"{known['image_id']}: the directories do not belong together"
                )
            known.update(row)
    return dict(sorted(merged.items()))


def iterate_rows(names: Sequence[str], sources: Sequence[ShardColumns]) -> Iterator[Row]:
    """All rows of the named shards, one shard in memory at a time."""
    for name in names:
        yield from read_rows(name, sources).values()
