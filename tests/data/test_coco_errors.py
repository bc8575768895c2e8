import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from slams_ray.data.coco import annotation_path, load_coco
from slams_ray.errors import DataError

# pycocotools 2.0.11 decodes in a way that numpy deprecates; nothing of ours can avoid it.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SQUARE = [[2.0, 3.0, 12.0, 3.0, 12.0, 13.0, 2.0, 13.0]]
GOOD = {"image_id": 12, "category_id": 3, "segmentation": SQUARE}


def image(**changes: Any) -> dict[str, Any]:
    return {"id": 12, "file_name": "000000000012.jpg", "height": 20, "width": 30} | changes


def test_a_missing_annotation_file_says_where_it_must_stand(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"instances_train\.json is missing: data\.root must contain"
    ):
        load_coco(str(tmp_path), "train")


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.99])
def test_a_truncated_annotation_file_is_named(write_coco: Callable[..., str], kept: float) -> None:
    root = write_coco([GOOD])
    path = Path(annotation_path(root, "train"))
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(DataError, match=r"instances_train\.json is not valid JSON.*truncated"):
        load_coco(root, "train")


@pytest.mark.parametrize("key", ["images", "annotations", "categories"])
def test_an_annotation_file_without_a_key_names_the_key(
    write_coco: Callable[..., str], key: str
) -> None:
    root = write_coco([GOOD])
    path = Path(annotation_path(root, "train"))
    content = json.loads(path.read_text())
    del content[key]
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=f"lacks a list of {key}: it must be an instances file"):
        load_coco(root, "train")


@pytest.mark.parametrize("content", ["[]", '[{"image_id": 1}]', "3", "null"])
def test_json_that_is_no_instances_file_is_refused(
    write_coco: Callable[..., str], content: str
) -> None:
    root = write_coco([GOOD])
    Path(annotation_path(root, "train")).write_text(content)
    with pytest.raises(DataError, match=r"instances_train\.json"):
        load_coco(root, "train")


@pytest.mark.parametrize("key", ["images", "annotations", "categories"])
def test_a_key_that_holds_no_list_is_named(write_coco: Callable[..., str], key: str) -> None:
    root = write_coco([GOOD])
    path = Path(annotation_path(root, "train"))
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: None}))
    with pytest.raises(DataError, match=f"lacks a list of {key}"):
        load_coco(root, "train")


def test_ids_may_be_whole_floats(write_coco: Callable[..., str]) -> None:
    """Tables that were joined make such ids."""
    root = write_coco([GOOD | {"image_id": 12.0}], images=[image()])
    (item,) = load_coco(root, "train").items
    assert item.image_labels == (1,)


def test_two_images_of_one_id_are_refused(write_coco: Callable[..., str]) -> None:
    """Joined annotation files have such ids; the annotations of both would be mixed."""
    root = write_coco([GOOD], images=[image(), image(file_name="b.jpg")])
    with pytest.raises(DataError, match=r"'000000000012.jpg' and 'b.jpg' the image id 12"):
        load_coco(root, "train")


@pytest.mark.parametrize("entry", [{"file_name": "a.jpg"}, {"id": [1]}, None])
def test_an_image_without_a_usable_id_is_refused(
    write_coco: Callable[..., str], entry: Any
) -> None:
    root = write_coco([GOOD], images=[image(), entry])
    with pytest.raises(DataError, match="whose id is no number and no text"):
        load_coco(root, "train")


@pytest.mark.parametrize("key", ["file_name", "height", "width"])
def test_an_image_entry_without_a_key_is_listed_as_bad(
    write_coco: Callable[..., str], key: str
) -> None:
    broken = image(id=34, file_name="000000000034.jpg")
    del broken[key]
    split = load_coco(write_coco([GOOD], images=[image(), broken]), "train")
    assert [item.image_id for item in split.items] == ["000000000012"]
    ((image_id, reason),) = split.bad
    assert image_id == "34"
    assert key in reason


@pytest.mark.parametrize(
    ("change", "image_id", "reason"),
    [
        ({"image_id": 99}, "99", r"for image 99, which the file does not list"),
        ({"category_id": 4}, "12", r"category_id 4, which the file does not define"),
        ({"segmentation": []}, "12", r"annotation 2 in .*train\.json has no segmentation"),
        ({"segmentation": None}, "12", r"has no segmentation"),
        ({"image_id": [12]}, "[12]", r"annotation 2 in .* has no image_id that is a number"),
    ],
)
def test_a_contradictory_annotation_is_listed_as_bad_with_its_reason(
    write_coco: Callable[..., str], change: dict[str, Any], image_id: str, reason: str
) -> None:
    split = load_coco(write_coco([GOOD, GOOD | change]), "train")
    image_is_sound = image_id != "12"
    assert [item.image_labels for item in split.items] == [(1,)] * image_is_sound
    assert [bad[0] for bad in split.bad] == [image_id]
    with pytest.raises(DataError, match=reason):
        raise DataError(split.bad[0][1])


@pytest.mark.parametrize("file_name", ["../secret.jpg", "a/../../secret.jpg", "/etc/secret.jpg"])
def test_a_file_name_that_leaves_the_directory_is_rejected(
    write_coco: Callable[..., str], file_name: str
) -> None:
    images = [image(), image(id=34, file_name=file_name)]
    split = load_coco(write_coco([GOOD], images=images), "train")
    assert [item.image_id for item in split.items] == ["000000000012"]
    ((image_id, reason),) = split.bad
    assert image_id == "34"
    assert file_name in reason
    assert "outside its directory" in reason


@pytest.mark.parametrize(
    ("category", "message"),
    [
        ({"id": 5, "name": "cat"}, "names the class 'cat' twice: name every class once"),
        ({"id": 0, "name": "background"}, "names the class 'background': leave it out or rename"),
        ({"id": 7, "name": "wolf"}, "gives 'dog' and 'wolf' the category id 7: give every"),
    ],
)
def test_a_category_that_is_there_twice_is_refused(
    write_coco: Callable[..., str], category: dict[str, Any], message: str
) -> None:
    root = write_coco([GOOD])
    path = Path(annotation_path(root, "train"))
    content = json.loads(path.read_text())
    content["categories"].append(category)
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=rf"instances_train\.json {message}"):
        load_coco(root, "train")


@pytest.mark.parametrize("name", ["cat", "background"])
def test_a_name_that_is_not_chosen_may_be_there_twice(
    write_coco: Callable[..., str], name: str
) -> None:
    root = write_coco([GOOD])
    path = Path(annotation_path(root, "train"))
    content = json.loads(path.read_text())
    content["categories"].append({"id": 99, "name": name})
    path.write_text(json.dumps(content))
    assert load_coco(root, "train", classes=("dog",)).description.class_names[1:] == ("dog",)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({}, "34"),
        ({}, "COCO_train_000000000034"),
        ({"file_name": "../secret_34.jpg"}, "secret_34"),
        ({"height": None}, "000000000034"),
        ({"file_name": None}, "34"),
    ],
    ids=["number", "stem", "path outside", "no height", "no file name"],
)
def test_a_list_may_name_bad_images_and_reports_no_other_bad_ones(
    write_coco: Callable[..., str], tmp_path: Path, changes: dict[str, Any], line: str
) -> None:
    entries = [image(id=i, file_name=f"COCO_train_{i:012d}.jpg") for i in (12, 34, 56)]
    entries[1] = {k: v for k, v in (entries[1] | changes).items() if v is not None}
    broken = [GOOD | {"image_id": i, "segmentation": []} for i in (56, 99, 34)]
    root = write_coco([GOOD, *(broken if not changes else broken[:2])], images=entries)
    (tmp_path / "list.txt").write_text(f"{line}\n12\n")
    split = load_coco(root, "train", list_path=str(tmp_path / "list.txt"))
    assert [item.image_id for item in split.items] == ["COCO_train_000000000012"]
    assert [image_id for image_id, _ in split.bad] == ["34"]


@pytest.mark.parametrize("line", ["99", "cat_picture", "other_12"])
def test_a_list_that_names_an_unknown_image_is_refused(
    write_coco: Callable[..., str], tmp_path: Path, line: str
) -> None:
    (tmp_path / "list.txt").write_text(f"12\n{line}\n")
    root = write_coco([GOOD], images=[image()])
    with pytest.raises(DataError, match=rf"list\.txt names '{line}', which the annotation file"):
        load_coco(root, "train", list_path=str(tmp_path / "list.txt"))


def test_an_image_of_another_size_than_annotated_gives_both_sizes(
    write_coco: Callable[..., str],
) -> None:
    read_mask = load_coco(write_coco([GOOD]), "train").items[0].read_mask
    assert read_mask is not None
    with pytest.raises(DataError, match=r"000000000012\.jpg: the image is 30 x 20.* 20 x 30"):
        read_mask(30, 20)


@pytest.mark.parametrize(
    "segmentation",
    [
        {"size": [20, 30], "counts": "no run lengths"},
        {"size": [20, 30], "counts": [5, 10_000]},
        {"size": [20, 30], "counts": [5, 5]},
        {"size": [10, 10], "counts": [50, 50]},
        {"size": [20, 30]},
        [[]],
        "polygon",
    ],
    ids=["garbage", "too long", "too short", "other size", "no counts", "no points", "text"],
)
def test_a_segmentation_that_cannot_be_drawn_names_its_image(
    write_coco: Callable[..., str], segmentation: Any
) -> None:
    root = write_coco([GOOD | {"segmentation": segmentation}])
    read_mask = load_coco(root, "train").items[0].read_mask
    assert read_mask is not None
    with pytest.raises(DataError, match=r"000000000012\.jpg: .*segmentation"):
        read_mask(20, 30)
