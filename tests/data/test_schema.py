import pytest

from slams_ray.data.schema import (
    DatasetDescription,
    Item,
    check_class_names,
    choose_classes,
    drop_unlabelled,
    voc_palette,
)
from slams_ray.errors import ConfigError, DataError

VOC_COLOURS = [
    (0, 0, 0),
    (128, 0, 0),
    (0, 128, 0),
    (128, 128, 0),
    (0, 0, 128),
    (128, 0, 128),
    (0, 128, 128),
    (128, 128, 128),
    (64, 0, 0),
    (192, 0, 0),
    (64, 128, 0),
    (192, 128, 0),
    (64, 0, 128),
    (192, 0, 128),
    (64, 128, 128),
    (192, 128, 128),
    (0, 64, 0),
    (128, 64, 0),
    (0, 192, 0),
    (128, 192, 0),
    (0, 64, 128),
]


def describe(num_classes: int) -> DatasetDescription:
    names = ("background", *(f"class {i}" for i in range(1, num_classes + 1)))
    return DatasetDescription(
        name="made up",
        class_names=names,
        category_ids=tuple(range(0, 2 * len(names), 2)),
        palette=voc_palette(len(names)),
    )


def test_the_palette_is_the_published_voc_colour_map() -> None:
    assert list(voc_palette(21)) == VOC_COLOURS


def test_the_palette_has_256_different_colours_and_ends_with_that_of_ignore() -> None:
    palette = voc_palette(256)
    assert len(set(palette)) == 256
    assert palette[255] == (224, 224, 192)


def test_a_description_survives_json() -> None:
    assert DatasetDescription.from_json(describe(5).to_json()) == describe(5)
    assert describe(5).num_classes == 5


@pytest.mark.parametrize("num_classes", [0, 255])
def test_a_description_needs_a_class_and_room_for_ignore(num_classes: int) -> None:
    with pytest.raises(ConfigError, match=rf"made up has {num_classes} classes, expected 1 to 254"):
        describe(num_classes)


def test_254_classes_fit_into_an_8_bit_mask() -> None:
    assert describe(254).num_classes == 254


@pytest.mark.parametrize("image_id", ["", ".", "..", "a/b", "a\\b", "a\0b", "x" * 201])
def test_an_id_that_is_no_file_name_is_refused(image_id: str) -> None:
    with pytest.raises(DataError, match="cannot be a file name: rename the image"):
        Item(image_id=image_id, image_path="x.jpg", image_labels=())


def test_a_subset_of_classes_keeps_the_order_of_the_data_set() -> None:
    assert choose_classes(["a", "b", "c"], ("c", "a"), "set") == ("a", "c")
    assert choose_classes(["a", "b", "c"], (), "set") == ("a", "b", "c")


def test_images_without_label_are_dropped_and_counted_unless_kept() -> None:
    items = [
        Item(image_id=str(i), image_path="x.jpg", image_labels=labels)
        for i, labels in enumerate([(1,), (), (2, 3), ()])
    ]
    kept, num_dropped = drop_unlabelled(items, keep=False)
    assert ([item.image_id for item in kept], num_dropped) == (["0", "2"], 2)
    assert drop_unlabelled(items, keep=True) == (tuple(items), 0)


@pytest.mark.parametrize("name", ["cat", "background"])
def test_a_class_name_twice_and_a_second_background_are_refused_with_their_file(name: str) -> None:
    with pytest.raises(DataError, match=rf"classes\.txt names the class '{name}'"):
        check_class_names(["cat", "dog", name], "classes.txt")
    check_class_names(["cat", "dog"], "classes.txt")
