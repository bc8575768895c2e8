from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from slams_ray.data.image import decode_image, decode_mask
from slams_ray.data.schema import DatasetDescription, Item
from slams_ray.data.shard_work import IMAGE_SCHEMA, PrepareMapper
from slams_ray.errors import DataError


def refuse(height: int, width: int) -> np.ndarray:
    raise DataError(f"the mask of {height} x {width} is bad")


def truncated(item: Item, directory: Path) -> Item:
    """The item with a copy of its image cut in half."""
    data = Path(item.image_path).read_bytes()
    path = directory / Path(item.image_path).name
    path.write_bytes(data[: len(data) // 2])
    return replace(item, image_path=str(path))


def test_a_row_holds_the_encoded_bytes_size_labels_and_mask(
    description: DatasetDescription, items: list[Item]
) -> None:
    table, summary = PrepareMapper(description, "fail")({}, items)
    assert table.schema.equals(IMAGE_SCHEMA)
    for item, row in zip(items, table.to_pylist(), strict=True):
        assert row["image_id"] == item.image_id
        assert row["image"] == Path(item.image_path).read_bytes()
        size = decode_image(row["image"], "a").shape[:2]
        assert (row["height"], row["width"]) == size
        assert row["image_labels"] == list(item.image_labels)
        assert (row["mask"] is None) == (item.read_mask is None)
        if item.read_mask is not None:
            expected = item.read_mask(*size)
            np.testing.assert_array_equal(decode_mask(row["mask"], "a"), expected)
    assert summary["num_rows"] == 4
    assert summary["num_masks"] == 3
    assert summary["bad"] == []


def test_images_are_counted_per_class(description: DatasetDescription, items: list[Item]) -> None:
    _, summary = PrepareMapper(description, "fail")({}, items)
    expected = [0] * len(description.class_names)
    for item in items:
        for label in item.image_labels:
            expected[label] += 1
    assert summary["images_per_class"] == expected
    assert sum(expected) > 0


def test_fail_raises_for_a_truncated_image_and_names_it(
    description: DatasetDescription, items: list[Item], tmp_path: Path
) -> None:
    spoiled = [items[0], truncated(items[1], tmp_path), *items[2:]]
    with pytest.raises(
        DataError, match=r"picture_1\.jpg .*truncated.*set data.on_bad_image to skip"
    ):
        PrepareMapper(description, "fail")({}, spoiled)


def test_skip_leaves_a_truncated_image_out_and_lists_its_reason(
    description: DatasetDescription, items: list[Item], tmp_path: Path
) -> None:
    spoiled = [items[0], truncated(items[1], tmp_path), *items[2:]]
    table, summary = PrepareMapper(description, "skip")({}, spoiled)
    expected, _ = PrepareMapper(description, "fail")({}, [items[0], *items[2:]])
    assert table.equals(expected)
    ((image_id, reason),) = summary["bad"]
    assert image_id == "picture_1"
    assert "truncated" in reason


@pytest.mark.parametrize("on_bad_image", ["fail", "skip"])
def test_a_missing_image_is_a_bad_image(
    description: DatasetDescription, items: list[Item], tmp_path: Path, on_bad_image: str
) -> None:
    spoiled = [items[0], replace(items[1], image_path=str(tmp_path / "gone.jpg"))]
    mapper = PrepareMapper(description, on_bad_image)
    if on_bad_image == "fail":
        with pytest.raises(DataError, match=r"gone\.jpg is missing"):
            mapper({}, spoiled)
    else:
        assert mapper({}, spoiled)[1]["bad"][0][0] == "picture_1"


def test_a_bad_mask_makes_a_bad_image(description: DatasetDescription, items: list[Item]) -> None:
    spoiled = [items[0], replace(items[1], read_mask=refuse)]
    table, summary = PrepareMapper(description, "skip")({}, spoiled)
    assert table.column("image_id").to_pylist() == ["picture_0"]
    assert "is bad" in summary["bad"][0][1]


def test_a_shard_of_bad_images_alone_is_an_empty_table_of_the_same_columns(
    description: DatasetDescription, items: list[Item]
) -> None:
    spoiled = [replace(item, read_mask=refuse) for item in items]
    table, summary = PrepareMapper(description, "skip")({}, spoiled)
    assert table.schema.equals(IMAGE_SCHEMA)
    assert (table.num_rows, summary["num_rows"], len(summary["bad"])) == (0, 0, 4)
