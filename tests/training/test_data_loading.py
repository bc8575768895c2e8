"""What a data-loading task makes of a loading_task, and what it is sent."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from ray import cloudpickle

from slams_ray.recipes.voc12 import voc12
from slams_ray.storage import write_table
from slams_ray.systems.slams.activation import ActivationTask
from slams_ray.training.data_loading import SampleLoader, ShardColumns
from slams_ray.training.samples import Row
from slams_ray.training.sampling import ROWS_PER_GROUP, LoadingTask, plan_loading
from slams_ray.training.training import Training


class Names:
    """A sampler that tells which images it was given."""

    needs_filler = True

    def sample(
        self, row: Row, rng: np.random.Generator, filler: Row | None = None
    ) -> dict[str, np.ndarray]:
        return {
            "image": np.array(int(row["image_id"])),
            "filler": np.array(-1 if filler is None else int(filler["image_id"])),
            "drawn": rng.random(2),
        }


def reader_of(directory: Path, labels: Sequence[Sequence[int]], name: str = "0") -> SampleLoader:
    """Reads a shard whose image i has the id i and the i-th labels."""
    table = pa.table(
        {
            "image_id": [str(i) for i in range(len(labels))],
            "image_labels": pa.array([list(own) for own in labels], pa.list_(pa.int16())),
        }
    )
    write_table(str(directory / name), table, ROWS_PER_GROUP)
    source = ShardColumns(directory=str(directory), columns=("image_labels",))
    return SampleLoader(sources=(source,), sampler=Names(), seed=0)


def chunk_of(rows: Sequence[int]) -> LoadingTask:
    return LoadingTask(first_step=0, streams=(0,), rows=(tuple(("0", row) for row in rows),))


def test_a_filler_does_not_show_the_class_even_where_all_neighbours_do(tmp_path: Path) -> None:
    labels = [(1,)] * 8 + [(2,)] * 8 + [(3,)] * 8
    samples = reader_of(tmp_path, labels)(chunk_of(range(8)))
    assert all(8 <= filler < 24 for filler in samples["filler"])
    assert len(set(samples["filler"].tolist())) > 2


def test_a_filler_comes_from_the_row_group_at_hand_where_that_suffices(tmp_path: Path) -> None:
    labels = [(1,), (2,), (1, 2), (3,), (1,), (2, 3), (1,), (1,)] + [(4,)] * 8
    samples = reader_of(tmp_path, labels)(chunk_of([0] * 40))
    assert set(samples["filler"].tolist()) == {1, 3, 5}


def test_where_every_image_shows_a_class_a_filler_shows_the_fewest(tmp_path: Path) -> None:
    labels = [(1, 2, 3)] * 9 + [(2,)] + [(1, 2)] * 6
    samples = reader_of(tmp_path, labels)(chunk_of([0, 4]))
    assert samples["filler"].tolist() == [9, 9]


def test_an_only_image_has_no_filler(tmp_path: Path) -> None:
    assert reader_of(tmp_path, [(1,)])(chunk_of([0]))["filler"].tolist() == [-1]


@pytest.mark.parametrize("num_workers", [2, 3])
def test_a_sample_and_its_filler_are_the_same_for_any_number_of_workers(
    num_workers: int, tmp_path: Path
) -> None:
    labels = [(1 + i // 12, 4) if i % 5 else (1 + i // 12,) for i in range(40)]
    reader = reader_of(tmp_path, labels)

    def read(rank: int, workers: int) -> list[tuple[Any, ...]]:
        loading_tasks = plan_loading(
            [("0", 40)],
            batch_size=6,
            rank=rank,
            num_workers=workers,
            first_step=0,
            last_step=20,
            seed=0,
        )
        found = [reader(loading_task) for loading_task in loading_tasks]
        return [
            (int(image), int(filler), *drawn.tolist())
            for samples in found
            for image, filler, drawn in zip(*samples.values(), strict=True)
        ]

    alone = read(0, 1)
    shared = [sample for rank in range(num_workers) for sample in read(rank, num_workers)]
    assert sorted(shared) == sorted(alone)
    assert len({sample[2:] for sample in alone}) == len(alone), "augmentations repeat"


def test_a_data_loading_task_of_voc12_is_sent_no_network() -> None:
    config = voc12()
    checkpoint = bytes(100 * 2**20)
    names = ["background", *(f"class {i}" for i in range(20))]
    task = ActivationTask(
        config.activation, config.classifier.backbone, names, checkpoint, checkpoint
    )
    training = Training(
        task=task,
        config=config.activation.training,
        shard_rows=[(f"{i:06d}.parquet", 256) for i in range(42)],
        sources=[ShardColumns(directory="s3://bucket/images", columns=("image", "image_labels"))],
    )
    assert len(cloudpickle.dumps(training.loader)) < 10_000
