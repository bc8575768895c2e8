import io
from pathlib import Path

import numpy as np
from PIL import Image

from slams_ray.data.image import decode_image, decode_mask
from slams_ray.data.schema import DatasetDescription, Item, voc_palette
from slams_ray.data.shard_work import PrepareMapper

DESCRIPTION = DatasetDescription(
    name="photos", class_names=("background", "cat"), category_ids=(0, 1), palette=voc_palette(2)
)


def lower_half(height: int, width: int) -> np.ndarray:
    mask = np.zeros((height, width), np.uint8)
    mask[height // 2 :] = 1
    return mask


def photograph(path: Path, orientation: int) -> Item:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (200, 100), (9, 9, 200)).save(path, exif=exif)
    return Item(image_id="a", image_path=str(path), image_labels=(1,), read_mask=lower_half)


def test_an_image_that_fits_keeps_its_bytes(tmp_path: Path) -> None:
    item = photograph(tmp_path / "a.jpg", 1)
    table, _ = PrepareMapper(DESCRIPTION, "fail", upright=True, max_side_px=200)({}, [item])
    assert table.to_pylist()[0]["image"] == (tmp_path / "a.jpg").read_bytes()


def test_a_large_image_and_its_mask_are_stored_smaller_and_aligned(tmp_path: Path) -> None:
    item = photograph(tmp_path / "a.jpg", 1)
    table, _ = PrepareMapper(DESCRIPTION, "fail", max_side_px=50)({}, [item])
    row = table.to_pylist()[0]
    assert (row["height"], row["width"]) == (25, 50)
    assert decode_image(row["image"], "a").shape == (25, 50, 3)
    mask = decode_mask(row["mask"], "a")
    assert mask.shape == (25, 50)
    assert abs(mask.mean() - 0.5) < 0.05


def test_a_photograph_taken_sideways_is_turned_only_on_request(tmp_path: Path) -> None:
    item = photograph(tmp_path / "a.jpg", 6)
    sizes = {}
    for upright in (False, True):
        table, _ = PrepareMapper(DESCRIPTION, "fail", upright=upright)({}, [item])
        row = table.to_pylist()[0]
        sizes[upright] = Image.fromarray(decode_image(row["image"], "a")).size
        assert (row["width"], row["height"]) == sizes[upright]
        assert Image.open(io.BytesIO(row["mask"])).size == sizes[upright]
    assert sizes == {False: (200, 100), True: (100, 200)}
