"""Reads the samples of a data-loading task, and the rows of shards for evaluation."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from slams_ray import storage
from slams_ray.errors import ArtifactError
from slams_ray.training.samples import Row, Sampler
from slams_ray.training.sampling import ROWS_PER_GROUP, LoadingTask, sample_order

_LABELS = "image_labels"


@dataclass(frozen=True, kw_only=True)
class ShardColumns:
    """A directory of shards and the columns to read from them."""

    directory: str
    columns: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class SampleLoader:
    """Reads, decodes and augments the samples of a loading task; every task gets a copy.

    A sample depends only on its image, its place in the plan and the random seed. So a restarted
    training, or one with another number of workers, gets the same pixels.

    Attributes:
        sources: columns of the training shards, joined by row.
        seed: random seed of the training.
    """

    sources: tuple[ShardColumns, ...]
    sampler: Sampler
    seed: int

    def __call__(self, loading_task: LoadingTask) -> dict[str, np.ndarray]:
        """Returns the stacked samples of a loading task: name -> (samples, ...) array."""
        order = list(sample_order(loading_task))
        needed: dict[str, set[int]] = {}
        for _, _, shard, row in order:
            needed.setdefault(shard, set()).add(row // ROWS_PER_GROUP)
        tables = {
            shard: _Shard(shard, self.sources, sorted(groups)) for shard, groups in needed.items()
        }
        samples = []
        for step, stream, shard, row in order:
            key = (self.seed, step, stream)
            filler = None
            if self.sampler.needs_filler:
                filler = tables[shard].filler(row, np.random.default_rng((*key, 1)))
            image = tables[shard].rows[row]
            samples.append(self.sampler.sample(image, np.random.default_rng(key), filler))
        return {name: np.stack([s[name] for s in samples]) for name in samples[0]}


class _Shard:
    """Rows of one shard: those of a loading task, and the filler images read on demand."""

    def __init__(self, name: str, sources: Sequence[ShardColumns], groups: Sequence[int]) -> None:
        self.name, self.sources = name, sources
        self.rows = read_rows(name, sources, groups)
        self._labels: dict[int, set[int]] | None = None

    def filler(self, row: int, rng: np.random.Generator) -> Row | None:
        """Draws a filler image: another image of the shard without the classes of this row.

        It comes from the same row group if possible, because that is in memory. If all images of
        the shard share a class with the row, one with the fewest shared classes is drawn. None if
        the shard has no other image.
        """
        present = set(self.rows[row][_LABELS])
        first = row - row % ROWS_PER_GROUP
        group = {
            number: set(self.rows[number][_LABELS])
            for number in range(first, first + ROWS_PER_GROUP)
            if number in self.rows and number != row
        }
        free = [number for number, labels in group.items() if not labels & present]
        if not free:
            others = {n: labels for n, labels in self._all_labels().items() if n != row}
            fewest = min((len(labels & present) for labels in others.values()), default=0)
            free = [n for n, labels in others.items() if len(labels & present) == fewest]
        if not free:
            return None
        chosen = free[rng.integers(len(free))]
        if chosen not in self.rows:
            self.rows |= read_rows(self.name, self.sources, [chosen // ROWS_PER_GROUP])
        return self.rows[chosen]

    def _all_labels(self) -> Mapping[int, set[int]]:
        if self._labels is None:
            (labelled,) = (source for source in self.sources if _LABELS in source.columns)
            only = ShardColumns(directory=labelled.directory, columns=(_LABELS,))
            rows = read_rows(self.name, [only])
            self._labels = {number: set(row[_LABELS]) for number, row in rows.items()}
        return self._labels


def read_rows(
    name: str, sources: Sequence[ShardColumns], groups: Sequence[int] | None = None
) -> dict[int, Row]:
    """Returns row number -> row of a shard, with the columns of all sources joined.

    Args:
        groups: row groups to read; None reads all.

    Raises:
        ArtifactError: the sources have different images in a row.
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
    """Yields all rows of the named shards, with one shard in memory at a time."""
    for name in names:
        yield from read_rows(name, sources).values()
