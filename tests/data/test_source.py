import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from slams_ray.config import DataConfig
from slams_ray.data import identity
from slams_ray.data.source import TRAIN, VAL, generate, load_split, roles
from slams_ray.errors import DataError

SQUARE = [[2.0, 3.0, 12.0, 3.0, 12.0, 13.0, 2.0, 13.0]]
ANNOTATIONS = [
    {"image_id": 12, "category_id": 3, "segmentation": SQUARE},
    {"image_id": 34, "category_id": 7, "segmentation": SQUARE},
]
ORPHAN = {"image_id": 99, "category_id": 3, "segmentation": SQUARE}


def coco_config(root: str, **changes: object) -> DataConfig:
    return replace(DataConfig(format="coco", root=root, val_split=None), **changes)  # type: ignore[arg-type]


def digest(config: DataConfig, root: str) -> str:
    return identity.digest(config, root, identity.file_states(config, root))


def test_a_config_without_val_split_has_one_role() -> None:
    config = DataConfig(format="coco", root="x", train_split="train2014", val_split="val2014")
    assert roles(config) == {TRAIN: "train2014", VAL: "val2014"}
    assert roles(replace(config, val_split=None)) == {TRAIN: "train2014"}


def test_a_bad_annotation_ends_the_loading_with_its_reason(write_coco: Callable[..., str]) -> None:
    config = coco_config(write_coco([*ANNOTATIONS, ORPHAN]))
    with pytest.raises(DataError, match=r"for image 99, .*Repair it, or set data\.on_bad_image"):
        load_split(config, config.root, TRAIN)


def test_a_bad_annotation_of_an_image_outside_the_list_ends_nothing(
    write_coco: Callable[..., str], tmp_path: Path
) -> None:
    root = write_coco([*ANNOTATIONS, ANNOTATIONS[1] | {"segmentation": []}, ORPHAN])
    (tmp_path / "list.txt").write_text("12\n")
    config = coco_config(root, train_list=str(tmp_path / "list.txt"))
    (item,) = load_split(config, root, TRAIN).items
    assert item.image_id == "COCO_train_000000000012"
    (tmp_path / "list.txt").write_text("12\n34\n")
    with pytest.raises(DataError, match=r"annotation 3 in .* has no segmentation \(image 34\)"):
        load_split(config, root, TRAIN)
    assert len(load_split(replace(config, on_bad_image="skip"), root, TRAIN).items) == 1


def test_on_bad_image_skip_keeps_the_rest_and_the_reason(write_coco: Callable[..., str]) -> None:
    config = coco_config(write_coco([*ANNOTATIONS, ORPHAN]), on_bad_image="skip")
    split = load_split(config, config.root, TRAIN)
    assert len(split.items) == 2
    assert [image_id for image_id, _ in split.bad] == ["99"]


def test_a_split_with_nothing_left_says_what_was_left_out(write_coco: Callable[..., str]) -> None:
    config = coco_config(write_coco(ANNOTATIONS), classes=("toothbrush",))
    with pytest.raises(
        DataError, match=r"split train is empty: 2 images have none .*data\.classes"
    ):
        load_split(config, config.root, TRAIN)


def test_two_images_of_one_id_are_refused(write_coco: Callable[..., str]) -> None:
    images = [
        {"id": i, "file_name": f"{folder}/same.jpg", "height": 20, "width": 30}
        for i, folder in ((12, "a"), (34, "b"))
    ]
    config = coco_config(write_coco(ANNOTATIONS, images=images))
    with pytest.raises(DataError, match=r"split train has two images with the id 'same': rename"):
        load_split(config, config.root, TRAIN)


def test_a_score_list_keeps_the_masks_of_its_images_only(
    write_voc: Callable[..., str], tmp_path: Path
) -> None:
    root = write_voc({name: np.full((4, 5), 8, np.uint8) for name in "abc"})
    (tmp_path / "scored.txt").write_text("c\na\n")
    config = DataConfig(
        format="voc",
        voc_labels_from="masks",
        root=root,
        val_split=None,
        score_list=str(tmp_path / "scored.txt"),
    )
    items = load_split(config, root, TRAIN).items
    assert {item.image_id for item in items if item.read_mask is not None} == {"a", "c"}
    assert [item.image_labels for item in items] == [(8,)] * 3


def test_a_score_list_of_voc_may_be_an_official_list(write_voc: Callable[..., str]) -> None:
    root = write_voc({name: np.full((4, 5), 8, np.uint8) for name in "abc"})
    Path(root, "ImageSets/Segmentation/few.txt").write_text("b\n")
    config = DataConfig(
        format="voc", voc_labels_from="masks", root=root, val_split=None, score_list="few"
    )
    items = load_split(config, root, TRAIN).items
    assert [item.image_id for item in items if item.read_mask is not None] == ["b"]


def test_the_score_list_does_not_touch_the_val_split(write_voc: Callable[..., str]) -> None:
    root = write_voc({name: np.full((4, 5), 8, np.uint8) for name in "ab"})
    Path(root, "ImageSets/Segmentation/few.txt").write_text("b\n")
    config = DataConfig(
        format="voc", voc_labels_from="masks", root=root, val_split="train", score_list="few"
    )
    assert all(item.read_mask for item in load_split(config, root, VAL).items)


def test_a_score_list_without_any_training_image_is_refused(
    write_voc: Callable[..., str], tmp_path: Path
) -> None:
    root = write_voc({"a": np.full((4, 5), 8, np.uint8)})
    (tmp_path / "scored.txt").write_text("z\n")
    config = DataConfig(
        format="voc",
        voc_labels_from="masks",
        root=root,
        val_split=None,
        score_list=str(tmp_path / "scored.txt"),
    )
    with pytest.raises(DataError, match=r"data\.score_list .*scored\.txt names no image of split"):
        load_split(config, root, TRAIN)


def test_the_digest_changes_with_a_byte_of_the_annotations(write_coco: Callable[..., str]) -> None:
    root = write_coco(ANNOTATIONS)
    before = digest(coco_config(root), root)
    path = Path(root, "annotations/instances_train.json")
    path.write_text(path.read_text().replace("12.0", "11.0", 1))
    assert digest(coco_config(root), root) != before


def test_the_digest_changes_with_a_list(write_coco: Callable[..., str], tmp_path: Path) -> None:
    root = write_coco(ANNOTATIONS)
    (tmp_path / "list.txt").write_text("12\n34\n")
    config = coco_config(root, train_list=str(tmp_path / "list.txt"))
    before = digest(config, root)
    (tmp_path / "list.txt").write_text("12\n")
    assert digest(config, root) != before
    assert digest(coco_config(root), root) not in (before, digest(config, root))


def test_the_digest_stays_when_the_root_moves(
    write_coco: Callable[..., str], tmp_path: Path
) -> None:
    root = write_coco(ANNOTATIONS)
    before = digest(coco_config(root), root)
    moved = str(Path(root).rename(tmp_path / "elsewhere"))
    assert digest(coco_config(moved), moved) == before


def test_the_digest_of_a_folder_covers_labels_and_classes(tmp_path: Path) -> None:
    config = DataConfig(format="folder", root=str(tmp_path))
    digests = []
    for labels, classes in (("a,cat", "cat"), ("a,dog", "cat"), ("a,cat", "cat\ndog")):
        (tmp_path / "labels.csv").write_text(f"image,labels\n{labels}\n")
        (tmp_path / "classes.txt").write_text(classes)
        digests.append(digest(config, str(tmp_path)))
    assert len(set(digests)) == 3


def test_a_data_set_of_ones_own_stays_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = DataConfig(format="coco", root="coco")
    assert generate(config, "workspace") == str(tmp_path.resolve() / "coco")
    assert not (tmp_path / "workspace").exists()


def test_an_interrupted_generation_is_completed(tmp_path: Path) -> None:
    config = DataConfig(format="synthetic", synthetic_train_images=9, synthetic_val_images=8)
    root = Path(generate(config, str(tmp_path)))
    whole = {p.relative_to(root): p.read_bytes() for p in root.rglob("*") if p.is_file()}
    annotation_file = root / "annotations/instances_val.json"
    annotation_file.unlink()
    next((root / "val").iterdir()).unlink()
    assert generate(config, str(tmp_path)) == str(root)
    assert {p.relative_to(root): p.read_bytes() for p in root.rglob("*") if p.is_file()} == whole
    assert len(json.loads(annotation_file.read_text())["images"]) == 8


def test_a_finished_generation_is_not_repeated(tmp_path: Path) -> None:
    config = DataConfig(format="synthetic", synthetic_train_images=8, synthetic_val_images=8)
    root = Path(generate(config, str(tmp_path)))
    times = {p: p.stat().st_mtime_ns for p in root.rglob("*.jpg")}
    generate(config, str(tmp_path))
    assert {p: p.stat().st_mtime_ns for p in root.rglob("*.jpg")} == times


def test_another_seed_or_size_is_generated_elsewhere(tmp_path: Path) -> None:
    config = DataConfig(format="synthetic", synthetic_train_images=8, synthetic_val_images=8)
    configs = [config, replace(config, synthetic_seed=1), replace(config, synthetic_val_images=9)]
    assert len({generate(c, str(tmp_path)) for c in configs}) == 3


def test_a_generated_set_loads_through_the_coco_loader(tmp_path: Path) -> None:
    config = DataConfig(format="synthetic", synthetic_train_images=8, synthetic_val_images=8)
    root = generate(config, str(tmp_path))
    train, val = load_split(config, root, TRAIN), load_split(config, root, VAL)
    assert (len(train.items), len(val.items)) == (8, 8)
    assert train.description == val.description
    assert not {i.image_id for i in train.items} & {i.image_id for i in val.items}
