from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from slams_ray.data.schema import voc_palette
from slams_ray.data.voc import VOC_CLASSES, index_lookup, load_voc
from slams_ray.errors import ConfigError, DataError

CAT, DOG, PERSON = (1 + VOC_CLASSES.index(name) for name in ("cat", "dog", "person"))
XML = "<annotation>{}</annotation>"
XML_OBJECT = "<object><name>{}</name>{}<part><name>cat</name></part></object>"
load_with_masks: Any = partial(load_voc, labels_from="masks")


def blank(*indices: int, height: int = 20, width: int = 30) -> np.ndarray:
    """A mask with one column of each index and background elsewhere."""
    mask = np.zeros((height, width), np.uint8)
    mask[:, : len(indices)] = indices
    return mask


def write_xml(root: str, image_id: str, *names: str) -> None:
    path = Path(root, "Annotations", f"{image_id}.xml")
    path.parent.mkdir(exist_ok=True)
    path.write_text(XML.format("".join(XML_OBJECT.format(name, "") for name in names)))


def test_classes_and_colours_are_those_of_voc(write_voc: Callable[..., str]) -> None:
    description = load_with_masks(write_voc({"a": blank(CAT)}), "train").description
    assert description.class_names == ("background", *VOC_CLASSES)
    assert description.category_ids == tuple(range(21))
    assert description.palette == voc_palette(21)
    colours = dict(zip(description.class_names, description.palette, strict=True))
    assert colours["aeroplane"] == (128, 0, 0)
    assert colours["person"] == (192, 128, 128)
    assert colours["tvmonitor"] == (0, 64, 128)


def test_masks_keep_their_indices_and_ignore(write_voc: Callable[..., str]) -> None:
    mask = blank(CAT, 255, PERSON)
    (item,) = load_with_masks(write_voc({"a": mask}), "train").items
    assert item.read_mask is not None
    np.testing.assert_array_equal(item.read_mask(20, 30), mask)


def test_labels_from_masks_are_their_classes_without_ignore(write_voc: Callable[..., str]) -> None:
    masks = {"a": blank(PERSON, 255, CAT), "b": blank(DOG)}
    split = load_with_masks(write_voc(masks), "train")
    assert [item.image_id for item in split.items] == ["a", "b"]
    assert [item.image_labels for item in split.items] == [(CAT, PERSON), (DOG,)]


def test_labels_from_xml_are_the_objects_and_not_their_parts(
    write_voc: Callable[..., str],
) -> None:
    root = write_voc({"a": blank(CAT)})
    write_xml(root, "a", "person", "dog", "person")
    (item,) = load_voc(root, "train").items
    assert item.image_labels == (DOG, PERSON)
    assert item.read_mask is not None


def test_labels_from_xml_need_no_mask(write_voc: Callable[..., str]) -> None:
    root = write_voc({"a": blank(CAT)})
    Path(root, "SegmentationClass/a.png").unlink()
    write_xml(root, "a", "cat")
    (item,) = load_voc(root, "train").items
    assert item.read_mask is None


def test_difficult_objects_count_as_they_do_in_published_labels(
    write_voc: Callable[..., str],
) -> None:
    root = write_voc({"a": blank(CAT)})
    write_xml(root, "a")
    difficult = XML_OBJECT.format("dog", "<difficult>1</difficult><truncated>1</truncated>")
    Path(root, "Annotations/a.xml").write_text(XML.format(difficult))
    (item,) = load_voc(root, "train").items
    assert item.image_labels == (DOG,)


def test_a_missing_annotation_is_named_with_the_other_source_of_labels(
    write_voc: Callable[..., str],
) -> None:
    root = write_voc({"a": blank(CAT)})
    split = load_voc(root, "train")
    assert split.items == ()
    ((image_id, reason),) = split.bad
    assert image_id == "a"
    assert f"{root}/Annotations/a.xml is missing" in reason
    assert "--data.voc-labels-from masks" in reason


@pytest.mark.parametrize("content", ["<annotation><object>", ""])
def test_an_xml_file_that_cannot_be_read_is_listed_as_bad(
    write_voc: Callable[..., str], content: str
) -> None:
    root = write_voc({"a": blank(CAT), "b": blank(CAT)})
    write_xml(root, "a", "cat")
    Path(root, "Annotations/b.xml").write_text(content)
    split = load_voc(root, "train")
    assert [item.image_id for item in split.items] == ["a"]
    ((image_id, reason),) = split.bad
    assert image_id == "b"
    assert "b.xml cannot be read" in reason


def test_a_subset_renumbers_the_masks_and_ignores_other_classes(
    write_voc: Callable[..., str],
) -> None:
    root = write_voc({"a": blank(CAT, PERSON, DOG, 255), "b": blank(DOG)})
    split = load_with_masks(root, "train", classes=("person", "cat"))
    description = split.description
    assert description.class_names == ("background", "cat", "person")
    assert description.category_ids == (0, CAT, PERSON)
    assert description.palette == tuple(voc_palette(21)[i] for i in (0, CAT, PERSON))
    assert (len(split.items), split.num_dropped) == (1, 1)
    (item,) = split.items
    assert item.image_labels == (1, 2)
    assert item.read_mask is not None
    np.testing.assert_array_equal(item.read_mask(20, 30), blank(1, 2, 255, 255))


def test_the_lookup_maps_stored_to_chosen_indices() -> None:
    lookup = index_lookup(["a", "b", "c"], ("c", "a"))
    assert lookup[:4] == (0, 2, 255, 1)
    assert set(lookup[4:]) == {255}


def test_an_unknown_class_is_named(write_voc: Callable[..., str]) -> None:
    with pytest.raises(ConfigError, match=r"data\.classes names zebra, which VOC 2012"):
        load_with_masks(write_voc({"a": blank(CAT)}), "train", classes=("zebra",))


def test_keep_unlabelled_keeps_images_of_background(write_voc: Callable[..., str]) -> None:
    root = write_voc({"a": blank(CAT), "b": blank()})
    assert load_with_masks(root, "train").num_dropped == 1
    kept = load_with_masks(root, "train", keep_unlabelled=True)
    assert [item.image_labels for item in kept.items] == [(CAT,), ()]


def test_a_missing_mask_is_listed_as_bad_by_its_path(write_voc: Callable[..., str]) -> None:
    root = write_voc({"a": blank(CAT), "b": blank(CAT)})
    Path(root, "SegmentationClass/b.png").unlink()
    split = load_with_masks(root, "train")
    assert [item.image_id for item in split.items] == ["a"]
    assert [image_id for image_id, _ in split.bad] == ["b"]
    assert "SegmentationClass/b.png is missing" in split.bad[0][1]


def test_a_mask_with_an_unknown_index_is_listed_as_bad(write_voc: Callable[..., str]) -> None:
    split = load_with_masks(write_voc({"a": blank(CAT), "b": blank(21)}), "train")
    assert [image_id for image_id, _ in split.bad] == ["b"]
    assert "b.png contains index 21, expected 0..20 or 255" in split.bad[0][1]


def test_a_mask_of_colours_is_listed_as_bad(write_voc: Callable[..., str]) -> None:
    root = write_voc({"a": blank(CAT)})
    Image.new("RGB", (30, 20)).save(Path(root, "SegmentationClass/a.png"))
    split = load_with_masks(root, "train")
    assert "a.png has mode RGB, expected an 8-bit palette" in split.bad[0][1]


def test_a_mask_of_another_size_than_its_image_is_refused(write_voc: Callable[..., str]) -> None:
    (item,) = load_with_masks(write_voc({"a": blank(CAT)}), "train").items
    assert item.read_mask is not None
    with pytest.raises(DataError, match=r"a\.png is \(20, 30\), but its image is \(21, 30\)"):
        item.read_mask(21, 30)


def test_a_missing_list_is_named(write_voc: Callable[..., str]) -> None:
    root = write_voc({"a": blank(CAT)})
    with pytest.raises(DataError, match=r"ImageSets/Segmentation/val\.txt is missing"):
        load_with_masks(root, "val")


def test_a_list_of_ones_own_replaces_the_official_one(
    write_voc: Callable[..., str], tmp_path: Path
) -> None:
    root = write_voc({"a": blank(CAT), "b": blank(DOG), "c": blank(PERSON)})
    (tmp_path / "mine.txt").write_text("c\na\n")
    split = load_with_masks(root, "train", list_path=str(tmp_path / "mine.txt"))
    assert [item.image_id for item in split.items] == ["c", "a"]


def test_real_voc_animals_load_with_their_six_classes(test_data: Path) -> None:
    root = test_data / "voc_animals/VOC2012"
    if not root.is_dir():
        pytest.skip(f"{root} is absent: set SLAMS_TEST_DATA to the folder that holds voc_animals")
    splits = [load_with_masks(str(root), name) for name in ("train", "val")]
    assert [len(split.items) for split in splits] == [480, 160]
    names = splits[0].description.class_names
    for split in splits:
        assert split.bad == ()
        found = {names[i] for item in split.items for i in item.image_labels}
        assert found == {"person", "cat", "cow", "dog", "horse", "sheep"}
