"""Names from annotation files never lead out of a directory, in reading or in writing."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from slams_ray.config import DataConfig
from slams_ray.data.image import encode_jpeg
from slams_ray.data.schema import DatasetDescription, voc_palette
from slams_ray.data.source import load_split
from slams_ray.errors import DataError
from slams_ray.refinement.crf.kernels import CrfKernels
from slams_ray.refinement.pseudo_label import ConfidentPair, Refinement
from slams_ray.refinement.shard_work import RefineMapper

HOSTILE = {
    "above": "../../x",
    "above within": "a/../../../x",
    "absolute": "/etc/x",
    "nul": "a\0x",
    "line break": "a\nb",
    "backslash": "..\\x",
    "another store": "s3://bucket/x",
    "too long": "x" * 300,
    "too long in UTF-8": "ü" * 120,
    "lone surrogate": "a\ud800",
    "dot": "sub/./x",
}


def coco_root(root: Path, name: str) -> Path:
    path = root / "annotations" / "instances_train.json"
    path.parent.mkdir()
    image = {"id": 1, "file_name": f"{name}.jpg", "height": 8, "width": 8}
    corners = [0, 0, 4, 0, 4, 4]
    annotation = {"id": 1, "image_id": 1, "category_id": 1, "segmentation": [corners]}
    categories = [{"id": 1, "name": "cat"}]
    content = {"images": [image], "annotations": [annotation], "categories": categories}
    path.write_text(json.dumps(content))
    return path


def voc_root(root: Path, name: str) -> Path:
    path = root / "ImageSets" / "Segmentation" / "train.txt"
    path.parent.mkdir(parents=True)
    path.write_text(f"{name}\n")
    return path


def folder_root(root: Path, name: str) -> Path:
    path = root / "labels.csv"
    path.write_text(f'image,labels\n"{name}.jpg",cat\n')
    return path


WRITERS: dict[str, Callable[[Path, str], Path]] = {
    "coco": coco_root,
    "voc": voc_root,
    "folder": folder_root,
}


def load(data_format: str, root: Path) -> None:
    config = DataConfig(format=data_format, root=str(root), val_split=None)  # type: ignore[arg-type]
    load_split(config, str(root), "train")


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("data_format", WRITERS)
def test_a_hostile_name_is_refused_and_its_annotation_file_named(
    tmp_path: Path, data_format: str, kind: str
) -> None:
    name = HOSTILE[kind]
    if data_format != "coco" and kind == "lone surrogate":
        pytest.skip("UTF-8 text cannot hold it")
    if data_format == "voc" and kind in ("absolute", "line break"):
        pytest.skip("VOC's own lists begin paths with a slash, and a line is a name")
    annotation_file = WRITERS[data_format](tmp_path, name)
    with pytest.raises(DataError) as refused:
        load(data_format, tmp_path)
    message = str(refused.value)
    assert str(annotation_file) in message
    assert "outside its directory" in message or "cannot be a file name" in message


def test_a_path_of_voc_that_starts_with_a_slash_stays_below_the_root(tmp_path: Path) -> None:
    voc_root(tmp_path, "/JPEGImages/x.jpg /SegmentationClass/x.png")
    (tmp_path / "SegmentationClass").mkdir()
    Image.fromarray(np.ones((8, 8), np.uint8)).save(tmp_path / "SegmentationClass/x.png")
    config = DataConfig(format="voc", voc_labels_from="masks", root=str(tmp_path), val_split=None)
    (item,) = load_split(config, str(tmp_path), "train").items
    assert item.image_path == str(tmp_path / "JPEGImages/x.jpg")


@pytest.mark.parametrize("kind", sorted(set(HOSTILE) - {"lone surrogate"}))
def test_an_id_in_a_changed_shard_does_not_name_an_export(tmp_path: Path, kind: str) -> None:
    """A shard can be changed by whoever can write the workspace; exports may stand elsewhere."""
    pixels = np.zeros((8, 8, 3), np.uint8)
    row = {"image_id": HOSTILE[kind], "image": encode_jpeg(pixels), "mask": None}
    maps = {"image_id": HOSTILE[kind], "image_labels": [1], "slams": bytes(4)}
    tables = {"images": pa.Table.from_pylist([row]), "activations": pa.Table.from_pylist([maps])}
    description = DatasetDescription(
        name="made up",
        class_names=("background", "cat"),
        category_ids=(0, 1),
        palette=voc_palette(2),
    )
    export = tmp_path / "out" / "voc"
    mapper = RefineMapper(
        description,
        "slams",
        ConfidentPair(foreground=0.3, chosen=0.2, background=0.1),
        Refinement(
            form="label",
            gt_prob=0.7,
            iterations=0,
            cam_power=1.0,
            backend="numba",
            kernels=CrfKernels(
                gaussian_sxy_px=3,
                gaussian_compat=3,
                bilateral_sxy_px=50,
                bilateral_srgb=5,
                bilateral_compat=10,
            ),
        ),
        str(export),
        True,
    )
    with pytest.raises(DataError, match=r"image shard: .* cannot be a file name"):
        mapper(tables, None)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
