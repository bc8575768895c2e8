"""Exported labels, read back as the programs they are for read them."""

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import yaml
from PIL import Image

from slams_ray.artifacts import Record, write_record
from slams_ray.data.image import encode_jpeg, encode_mask
from slams_ray.data.schema import DatasetDescription, voc_palette
from slams_ray.errors import ArtifactError, ConfigError, DataError
from slams_ray.exports.voc import VocWriter
from slams_ray.stages import export
from slams_ray.storage import write_table

DESCRIPTION = DatasetDescription(
    name="pets",
    class_names=("background", "cat", "big dog"),
    category_ids=(0, 17, 90),
    palette=voc_palette(3),
)
SIZES = {"a": (9, 14), "b": (12, 7), "c": (5, 5)}


def labels_of(image_id: str, seed: int) -> np.ndarray:
    """Labels with background, both classes and 255."""
    rng = np.random.default_rng([seed, ord(image_id)])
    return rng.choice(np.array([0, 1, 2, 255], np.uint8), SIZES[image_id])


PSEUDO = {name: labels_of(name, 0) for name in "ab"}
PREDICTED = {"c": np.minimum(labels_of("c", 1), 2)}


def write_labels(directory: Path, column: str, labels: dict[str, np.ndarray]) -> None:
    encoded = [encode_mask(found, DESCRIPTION.palette) for found in labels.values()]
    table = pa.table({"image_id": [*labels], column: encoded})
    write_table(str(directory / "000000.parquet"), table)


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """What a finished pipeline leaves, as far as labels are concerned."""
    root = tmp_path / "workspace"
    prepared, refined, scored = (root / s / "0" for s in ("prepare", "refine", "evaluate"))
    for role, labels in (("train", PSEUDO), ("val", PREDICTED)):
        image = {name: encode_jpeg(np.zeros((*SIZES[name], 3), np.uint8)) for name in labels}
        table = pa.table({"image_id": [*image], "image": [*image.values()]})
        write_table(str(prepared / "images" / role / "000000.parquet"), table)
    (prepared / "dataset.json").write_text(DESCRIPTION.to_json())
    write_labels(refined / "pseudo_labels", "pseudo_label", PSEUDO)
    write_labels(scored / "predictions", "prediction", PREDICTED)
    shards = {"train": [["000000.parquet", 2, "", ""]], "val": [["000000.parquet", 1, "", ""]]}
    splits = {"train": {"num_masks": 0}, "val": {"num_masks": 1}}
    for directory, config, notes in (
        (prepared, {"max_side_px": None}, {"shards": shards, "splits": splits}),
        (refined, {}, {}),
        (scored, {"split": "val"}, {}),
    ):
        stage = directory.parent.name
        record = Record(
            stage=stage,
            fingerprint="0",
            config=config,
            inputs={},
            seconds=0,
            num_rows=0,
            notes=notes,
        )
        write_record(str(directory), record)
    stages = [{"stage": s, "output": f"{root}/{s}/0"} for s in ("prepare", "refine", "evaluate")]
    (root / "summary.json").write_text(json.dumps({"stages": stages}))
    return root


def run(
    workspace: Path, name: str, labels: str = "pseudo", images: bool = False, **options: str
) -> Path:
    output = workspace.parent / name
    num_images = export.run(
        str(workspace), name, str(output), labels=labels, images=images, **options
    )
    assert num_images == (2 if labels == "pseudo" else 1)
    assert (output / "class_names.txt").read_text() == "background\ncat\nbig dog\n"
    return output


def read_cvat(root: Path) -> dict[str, np.ndarray]:
    """Reads Segmentation mask 1.1 as CVAT does: a colour is a label, by the label map."""
    label_of = {}
    for line in (root / "labelmap.txt").read_text().splitlines():
        if line.startswith("#"):
            continue
        name, colour, parts, actions = line.split(":")
        assert (parts, actions) == ("", "")
        label_of[tuple(map(int, colour.split(",")))] = name
    assert len(set(label_of.values())) == len(label_of) == 4
    found = {}
    for image_id in (root / "ImageSets/Segmentation/default.txt").read_text().split():
        pixels = np.asarray(
            Image.open(root / "SegmentationClass" / f"{image_id}.png").convert("RGB")
        )
        found[image_id] = np.array([[label_of[tuple(map(int, p))] for p in row] for row in pixels])
    return found


def test_voc_is_read_by_its_colours(workspace: Path) -> None:
    named = {0: "background", 1: "cat", 2: "big dog", 255: "ignore"}
    found = read_cvat(run(workspace, "voc"))
    assert found.keys() == PSEUDO.keys()
    for image_id, labels in PSEUDO.items():
        expected = np.vectorize(named.get)(labels)
        np.testing.assert_array_equal(found[image_id], expected)


def test_masks_have_one_channel_and_the_indices_of_data_yaml(workspace: Path) -> None:
    root = run(workspace, "masks", images=True)
    content = yaml.safe_load((root / "data.yaml").read_text())
    assert content["names"] == {0: "background", 1: "cat", 2: "big dog"}
    assert content["ignore"] == 255
    for image_id, labels in PSEUDO.items():
        # cv2.imread returns a grayscale PNG unchanged, as Pillow does; OpenCV is no dependency.
        mask = Image.open(root / content["masks"] / f"{image_id}.png")
        assert mask.mode == "L"
        np.testing.assert_array_equal(np.asarray(mask), labels)
        assert Image.open(root / "JPEGImages" / f"{image_id}.jpg").size == mask.size


def read_coco(root: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pycocotools.coco import COCO

    return COCO(str(root / "annotations.json"))


def flooded(pixels: np.ndarray) -> int:
    """Number of regions of a mask whose pixels touch at a side or corner."""
    left = {tuple(place) for place in np.argwhere(pixels)}
    num_regions = 0
    while left:
        num_regions += 1
        reached = [left.pop()]
        for row, column in reached:
            near = {(row + i, column + j) for i in (-1, 0, 1) for j in (-1, 0, 1)} & left
            left -= near
            reached += near
    return num_regions


def test_coco_can_have_an_annotation_for_each_connected_region(workspace: Path) -> None:
    coco = read_coco(run(workspace, "coco", regions="connected"))
    for image in coco.loadImgs(coco.getImgIds()):
        labels = PSEUDO[image["file_name"].removesuffix(".jpg")]
        for class_index in (1, 2):
            ids = coco.getAnnIds(image["id"], catIds=[DESCRIPTION.category_ids[class_index]])
            masks = [coco.annToMask(annotation) for annotation in coco.loadAnns(ids)]
            assert len(masks) == flooded(labels == class_index) > 1
            assert [flooded(mask) for mask in masks] == [1] * len(masks)
            np.testing.assert_array_equal(sum(masks), labels == class_index)
    with pytest.raises(ConfigError, match="masks has no regions"):
        run(workspace, "masks", regions="connected")


def test_coco_is_read_by_pycocotools(workspace: Path) -> None:
    coco = read_coco(run(workspace, "coco"))
    assert {c["id"]: c["name"] for c in coco.dataset["categories"]} == {17: "cat", 90: "big dog"}
    assert sorted(coco.anns) == list(range(1, len(coco.anns) + 1))
    for image in coco.loadImgs(coco.getImgIds()):
        labels = PSEUDO[image["file_name"].removesuffix(".jpg")]
        assert (image["height"], image["width"]) == labels.shape
        rebuilt = np.zeros_like(labels)
        for annotation in coco.loadAnns(coco.getAnnIds(image["id"])):
            pixels = coco.annToMask(annotation) == 1
            class_index = DESCRIPTION.category_ids.index(annotation["category_id"])
            rows, columns = np.nonzero(pixels)
            box = columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1
            assert annotation["bbox"] == list(map(float, box))
            assert annotation["area"] == pixels.sum() == (labels == class_index).sum()
            rebuilt[pixels] = class_index
        np.testing.assert_array_equal(rebuilt, np.where(labels == 255, 0, labels))


def test_stored_predictions_of_the_scored_split_can_be_exported(workspace: Path) -> None:
    root = run(workspace, "masks", "predictions")
    mask = np.asarray(Image.open(root / "masks" / "c.png"))
    np.testing.assert_array_equal(mask, PREDICTED["c"])


@pytest.mark.parametrize("name", ["cat: tabby", "# cat", "ignore", "two\nlines"])
def test_a_name_that_would_break_the_label_map_is_refused(name: str, tmp_path: Path) -> None:
    description = DatasetDescription(
        name="pets",
        class_names=("background", name),
        category_ids=(0, 1),
        palette=voc_palette(2),
    )
    with pytest.raises(DataError, match=r"cannot be in labelmap\.txt.* export as masks or coco"):
        VocWriter(str(tmp_path), description)


def test_a_workspace_without_labels_and_an_output_over_it_are_refused(
    workspace: Path, tmp_path: Path
) -> None:
    with pytest.raises(ArtifactError, match=r"has no summary\.json"):
        export.run(str(tmp_path), "voc", str(tmp_path / "out"), labels="pseudo", images=False)
    with pytest.raises(ConfigError, match="output is the workspace"):
        export.run(str(workspace), "voc", str(workspace), labels="pseudo", images=False)
    shutil.rmtree(workspace / "refine")
    with pytest.raises(ArtifactError, match=r"refine/0/pseudo_labels/.* is missing"):
        export.run(str(workspace), "voc", str(tmp_path / "out"), labels="pseudo", images=False)


@pytest.mark.parametrize(
    ("name", "images", "victim"),
    [
        ("masks", False, "masks/a.png"),
        ("voc", False, "SegmentationClass/a.png"),
        ("voc", False, "ImageSets/Segmentation/default.txt"),
        ("coco", True, "JPEGImages/a.jpg"),
        ("coco", False, "class_names.txt"),
    ],
)
def test_what_no_export_has_written_is_not_replaced(
    name: str, images: bool, victim: str, workspace: Path
) -> None:
    path = workspace.parent / name / victim
    path.parent.mkdir(parents=True)
    (workspace.parent / name / "SegmentationClass").mkdir(exist_ok=True)
    path.write_bytes(b"drawn by hand")
    with pytest.raises(ConfigError, match="no export has written it: choose another --output"):
        run(workspace, name, images=images)
    assert [f for f in (workspace.parent / name).rglob("*") if f.is_file()] == [path]
    assert path.read_bytes() == b"drawn by hand"


def test_an_export_replaces_its_own_files_and_leaves_others(workspace: Path) -> None:
    other = workspace.parent / "voc" / "masks" / "a.png"
    other.parent.mkdir(parents=True)
    other.write_bytes(b"drawn by hand")
    before = {f: f.read_bytes() for f in run(workspace, "voc", images=True).rglob("*.png")}
    (workspace.parent / "voc" / "SegmentationClass" / "a.png").write_bytes(b"damaged")
    assert {f: f.read_bytes() for f in run(workspace, "voc").rglob("*.png")} == before
    assert other.read_bytes() == b"drawn by hand"
