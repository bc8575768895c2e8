import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from slams_ray.data.image import decode_mask
from slams_ray.data.stored_maps import PSEUDO_LABEL_SCHEMA
from slams_ray.metrics import confusion_matrix
from slams_ray.refinement.crf.kernels import CrfKernels
from slams_ray.refinement.pseudo_label import ConfidentPair, Refinement
from slams_ray.refinement.shard_work import RefineMapper

CONFIDENCE = ConfidentPair(background=0.3, chosen=0.4, foreground=0.55)
REFINEMENT = Refinement(
    form="label",
    gt_prob=0.7,
    iterations=2,
    kernels=CrfKernels(
        gaussian_sxy_px=3.0,
        gaussian_compat=3.0,
        bilateral_sxy_px=30.0,
        bilateral_srgb=5.0,
        bilateral_compat=10.0,
    ),
)


def run(shard: Any, **options: Any) -> tuple[pa.Table, dict[str, Any]]:
    mapper = RefineMapper(shard.description, "slams", CONFIDENCE, REFINEMENT, **options)
    return mapper({"images": shard.images, "activations": shard.activations}, None)


@pytest.fixture(scope="module")
def refined(shard: Any) -> tuple[pa.Table, dict[str, Any]]:
    return run(shard)


def test_rows_follow_the_image_shard(shard: Any, refined: Any) -> None:
    table, summary = refined
    assert table.schema.equals(PSEUDO_LABEL_SCHEMA)
    assert table.column("image_id").equals(shard.images.column("image_id"))
    assert summary["num_rows"] == 4


def test_label_maps_have_the_size_of_their_image(shard: Any, refined: Any) -> None:
    for image_row, row in zip(shard.images.to_pylist(), refined[0].to_pylist(), strict=True):
        for column in ("refined", "pseudo_label"):
            shape = decode_mask(row[column], column).shape
            assert shape == (image_row["height"], image_row["width"])


def test_label_maps_never_name_an_absent_class(shard: Any, refined: Any) -> None:
    for item, row in zip(shard.items, refined[0].to_pylist(), strict=True):
        allowed = {0, *item.image_labels}
        assert set(np.unique(decode_mask(row["refined"], "a"))) <= allowed
        assert set(np.unique(decode_mask(row["pseudo_label"], "a"))) <= allowed | {255}


def test_an_image_without_label_becomes_background(refined: Any) -> None:
    row = refined[0].to_pylist()[2]
    assert not decode_mask(row["pseudo_label"], "a").any()


def test_the_confusion_is_that_of_its_own_refined_maps(shard: Any, refined: Any) -> None:
    table, summary = refined
    num_all_classes = len(shard.description.class_names)
    expected = np.zeros((num_all_classes, num_all_classes + 1), np.int64)
    for image_row, row in zip(shard.images.to_pylist(), table.to_pylist(), strict=True):
        if image_row["mask"] is not None:
            expected += confusion_matrix(
                decode_mask(image_row["mask"], "a"),
                decode_mask(row["refined"], "a"),
                num_all_classes,
            )
    np.testing.assert_array_equal(summary["confusion"], expected)
    assert expected.sum() > 0


def test_ignored_pixels_are_counted_in_its_own_pseudo_labels(refined: Any) -> None:
    table, summary = refined
    labels = [decode_mask(data.as_py(), "a") for data in table.column("pseudo_label")]
    assert summary["num_pixels"] == sum(label.size for label in labels)
    assert summary["num_ignored"] == sum(int((label == 255).sum()) for label in labels)
    assert 0 < summary["num_ignored"] < summary["num_pixels"]


def test_without_an_export_directory_nothing_is_written(
    shard: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run(shard)
    assert list(tmp_path.iterdir()) == []


def test_masks_alone_are_exported_as_palette_pngs(shard: Any, tmp_path: Path) -> None:
    table, _ = run(shard, export_dir=str(tmp_path))
    exported = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file())
    assert exported == [f"SegmentationClass/picture_{i}.png" for i in range(4)]
    for row in table.to_pylist():
        data = (tmp_path / "SegmentationClass" / f"{row['image_id']}.png").read_bytes()
        assert data == row["pseudo_label"]
        picture = Image.open(io.BytesIO(data))
        assert picture.mode == "P"
        palette = np.asarray(picture.getpalette()).reshape(-1, 3)
        np.testing.assert_array_equal(palette[:7], shard.description.palette)


def test_images_are_exported_with_their_own_bytes_under_their_true_name(
    shard: Any, tmp_path: Path
) -> None:
    run(shard, export_dir=str(tmp_path), export_images=True)
    names = sorted(p.name for p in (tmp_path / "JPEGImages").iterdir())
    assert names == ["picture_0.jpg", "picture_1.jpg", "picture_2.jpg", "picture_3.png"]
    for name, row in zip(names, shard.images.to_pylist(), strict=True):
        assert (tmp_path / "JPEGImages" / name).read_bytes() == row["image"]
