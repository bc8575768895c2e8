"""What tells whether a data set or a shard of it has changed."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from slams_ray.config import DataConfig
from slams_ray.data.identity import digest, file_states, items_digest
from slams_ray.data.schema import Item
from slams_ray.data.source import TRAIN, load_split, shuffle


def write_folder(root: Path, num_images: int = 4) -> DataConfig:
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True)
    rows = ["image,labels"]
    for number in range(num_images):
        Image.new("RGB", (20, 10), (number, 0, 0)).save(root / "images" / f"{number}.png")
        Image.fromarray(np.full((10, 20), number % 2, np.uint8)).save(
            root / "masks" / f"{number}.png"
        )
        rows.append(f"{number}.png,cat")
    (root / "labels.csv").write_text("\n".join(rows))
    return DataConfig(format="folder", root=str(root), val_split=None)


def digests(config: DataConfig) -> tuple[str, list[str]]:
    """Of the data set, and of each item as a shard of its own."""
    states = file_states(config, config.root)
    items = load_split(config, config.root, TRAIN).items
    return (
        digest(config, config.root, states),
        [items_digest([item], config.root, states) for item in items],
    )


@pytest.mark.parametrize("kind", ["images", "masks"])
def test_a_changed_file_changes_the_data_set_and_its_own_item_alone(
    kind: str, tmp_path: Path
) -> None:
    config = write_folder(tmp_path)
    whole, items = digests(config)
    assert digests(config) == (whole, items)
    Image.fromarray(np.ones((10, 20), np.uint8)).save(tmp_path / kind / "2.png")
    now_whole, now_items = digests(config)
    assert now_whole != whole
    assert [a != b for a, b in zip(items, now_items, strict=True)] == [False, False, True, False]


def test_a_file_of_the_same_size_written_later_is_another(tmp_path: Path) -> None:
    config = write_folder(tmp_path)
    whole, _ = digests(config)
    path = tmp_path / "masks" / "1.png"
    state = path.stat()
    path.write_bytes(path.read_bytes()[::-1])
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns + 1_000_000_000))
    assert path.stat().st_size == state.st_size
    assert digests(config)[0] != whole


def test_a_changed_polygon_changes_its_own_item_alone(write_coco: Callable[..., str]) -> None:
    square = [[2.0, 3.0, 12.0, 3.0, 12.0, 13.0, 2.0, 13.0]]
    annotations: list[dict[str, Any]] = [
        {"image_id": 12, "category_id": 3, "segmentation": square},
        {"image_id": 34, "category_id": 7, "segmentation": square},
    ]
    found = []
    for last in (13.0, 11.0):
        annotations[1]["segmentation"] = [[*square[0][:-1], last]]
        root = write_coco(annotations)
        config = DataConfig(format="coco", root=root, val_split=None)
        items = load_split(config, root, TRAIN).items
        found.append([items_digest([item], root, {}) for item in items])
    assert [a == b for a, b in zip(*found, strict=True)] == [True, False]


def items_by_class(num_classes: int, num_images: int) -> list[Item]:
    return [
        Item(image_id=f"{c}-{i}", image_path="x", image_labels=(c,))
        for c in range(1, num_classes + 1)
        for i in range(num_images)
    ]


def largest_share(items: tuple[Item, ...], shard: int = 40) -> float:
    """Mean over shards of the share that their most frequent class has."""
    labels = np.array([item.image_labels[0] for item in items]).reshape(-1, shard)
    return float(np.mean([np.bincount(row).max() / shard for row in labels]))


def test_a_sorted_list_is_stored_as_mixed_as_a_shuffled_one() -> None:
    by_class = items_by_class(6, 80)
    order = np.random.default_rng(5).permutation(len(by_class))
    found_sorted = shuffle(by_class)
    found_mixed = shuffle([by_class[i] for i in order])
    assert sorted(i.image_id for i in found_sorted) == sorted(i.image_id for i in by_class)
    assert largest_share(tuple(by_class)) == 1.0
    assert abs(largest_share(found_sorted) - largest_share(found_mixed)) < 0.05
    assert largest_share(found_sorted) < 0.35
    assert shuffle(by_class) == found_sorted
