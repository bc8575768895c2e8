"""The scored images of a search do not depend on the order of the list."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from slams_ray import storage
from slams_ray.artifacts import Record
from slams_ray.config import ActivationInferenceConfig, SearchConfig, WalkConfig
from slams_ray.data.image import encode_mask
from slams_ray.data.schema import DatasetDescription, voc_palette
from slams_ray.data.source import TRAIN
from slams_ray.metrics import IGNORE_INDEX
from slams_ray.refinement.trial import MAPS, SLICE_SCHEMA, maps_schema
from slams_ray.stages.map_sets import MapSet, walk_sets
from slams_ray.stages.prepare import PreparedData, Shard
from slams_ray.stages.slices import read_slice, write_slices
from slams_ray.stages.stage import Result

CONFIG = SearchConfig(num_samples=1, num_images=6, num_slices=2)
INFERENCE = ActivationInferenceConfig(scales=(1.0,))


SCORED, UNSCORED = (
    encode_mask(np.full((4, 4), index, np.uint8), voc_palette(3)) for index in (1, IGNORE_INDEX)
)


def image(number: int) -> dict[str, Any]:
    """Sorted by class; every fifth has no mask, and the one behind it a mask of 255 alone."""
    return {
        "image_id": f"image-{number:02d}",
        "image": b"",
        "height": 4,
        "width": 4,
        "mask": {0: None, 1: UNSCORED}.get(number % 5, SCORED),
        "image_labels": [1 + number // 20],
        "slams": bytes([number]),
    }


def slices_of(directory: Path, numbers: list[int], shard_size: int) -> list[list[dict[str, Any]]]:
    """The slices drawn when the images are listed in this order."""
    shards = []
    for start in range(0, len(numbers), shard_size):
        rows = [image(number) for number in numbers[start : start + shard_size]]
        shards.append((f"{start}.parquet", len(rows)))
        for folder, schema in [
            (directory / "prepare/images" / TRAIN, SLICE_SCHEMA),
            (directory / "infer/activations", maps_schema("slams")),
        ]:
            table = pa.Table.from_pylist(rows, schema=schema)
            storage.write_table(str(folder / shards[-1][0]), table, 8)
    data = PreparedData(
        directory=str(directory / "prepare"),
        description=DatasetDescription(
            name="two",
            class_names=("background", "cat", "dog"),
            category_ids=(0, 1, 2),
            palette=voc_palette(3),
        ),
        shards={TRAIN: [Shard(name, rows, name, name) for name, rows in shards]},
    )
    record = Record(stage="", fingerprint="", config={}, inputs={}, seconds=0, num_rows=0)
    inferred = Result(output_dir=str(directory / "infer"), record=record, cached=True)
    found = write_slices(CONFIG, INFERENCE, data, inferred, "slams", str(directory / "search"))
    names = [*found.searched, *found.held_out]
    return [read_slice(found, name, MapSet(scales="1")).to_pylist() for name in names]


def test_a_sorted_and_a_shuffled_list_give_the_same_slices(tmp_path: Path) -> None:
    numbers = list(range(40))
    shuffled = random.Random(1).sample(numbers, len(numbers))
    found = slices_of(tmp_path / "sorted", numbers, 10)
    assert found == slices_of(tmp_path / "shuffled", shuffled, 7)
    rows = [row for part in found for row in part]
    assert len({row["image_id"] for row in rows}) == 12
    assert all(row["mask"] == SCORED for row in rows)
    assert {row["image_labels"][0] for row in rows} == {1, 2}
    assert all(row[MAPS] == bytes([int(row["image_id"][-2:])]) for row in rows)


def test_searched_walks_keep_the_settings_that_are_not_searched() -> None:
    walk = WalkConfig(beta=8.0, num_steps=16, erase_edges=True)
    found = walk_sets(SearchConfig(num_samples=1, walk_beta=(4.0,)), walk)
    assert [(w.beta, w.num_steps) for w in found.values()] == [(8.0, 16), (4.0, 16)]
    assert all(w.erase_edges for w in found.values())
