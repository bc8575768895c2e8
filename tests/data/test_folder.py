from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from slams_ray.data.folder import load_folder
from slams_ray.errors import DataError

WITH_SPLITS = "image,labels,split\na.jpg,cat;dog,train\nb.png,dog,val\nc.jpg,cat,train\n"


@pytest.fixture
def write_folder(tmp_path: Path) -> Callable[..., str]:
    """Writes labels.csv and, where given, classes.txt; returns the root."""

    def write(labels: str, classes: str | None = None) -> str:
        root = tmp_path / "photos"
        root.mkdir(exist_ok=True)
        (root / "labels.csv").write_text(labels)
        if classes is not None:
            (root / "classes.txt").write_text(classes)
        return str(root)

    return write


def write_mask(root: str, stem: str, mask: np.ndarray) -> None:
    Path(root, "masks").mkdir(exist_ok=True)
    Image.fromarray(mask).save(Path(root, "masks", f"{stem}.png"))


def test_the_split_column_chooses_the_rows(write_folder: Callable[..., str]) -> None:
    root = write_folder(WITH_SPLITS)
    train, val = load_folder(root, "train"), load_folder(root, "val")
    assert [item.image_id for item in train.items] == ["a", "c"]
    assert [item.image_id for item in val.items] == ["b"]
    assert val.items[0].image_path == f"{root}/images/b.png"


def test_without_a_split_column_every_row_is_in_every_split(
    write_folder: Callable[..., str],
) -> None:
    root = write_folder("image,labels\na.jpg,cat\nb.jpg,dog\n")
    for split in ("train", "val"):
        assert [item.image_id for item in load_folder(root, split).items] == ["a", "b"]


def test_a_split_without_rows_is_named_with_those_that_have_some(
    write_folder: Callable[..., str],
) -> None:
    root = write_folder("image,labels,split\na.jpg,cat,train\nb.jpg,dog,training\n")
    expected = r"labels\.csv has no row whose split is 'val', only train, training: .*val_split"
    with pytest.raises(DataError, match=expected):
        load_folder(root, "val")


def test_blanks_after_commas_mean_nothing(write_folder: Callable[..., str]) -> None:
    root = write_folder("image, labels, split\na.jpg, cat;dog, train\nb.jpg, dog, val\n")
    (item,) = load_folder(root, "train").items
    assert (item.image_id, item.image_labels) == ("a", (1, 2))


def test_without_classes_txt_the_classes_are_the_sorted_labels(
    write_folder: Callable[..., str],
) -> None:
    split = load_folder(write_folder(WITH_SPLITS), "train")
    assert split.description.class_names == ("background", "cat", "dog")
    assert [item.image_labels for item in split.items] == [(1, 2), (1,)]


def test_classes_txt_sets_the_order(write_folder: Callable[..., str]) -> None:
    split = load_folder(write_folder(WITH_SPLITS, "dog\n\ncat\nbird\n"), "train")
    assert split.description.class_names == ("background", "dog", "cat", "bird")
    assert [item.image_labels for item in split.items] == [(1, 2), (2,)]


def test_labels_are_separated_by_semicolons_and_trimmed(write_folder: Callable[..., str]) -> None:
    root = write_folder('image,labels\na.jpg," dog ; cat;;"\n')
    (item,) = load_folder(root, "train").items
    assert item.image_labels == (1, 2)


def test_an_image_is_labelled_with_a_class_once(write_folder: Callable[..., str]) -> None:
    (item,) = load_folder(write_folder("image,labels\na.jpg,dog;cat;dog\n"), "train").items
    assert item.image_labels == (1, 2)


def test_what_looks_like_a_mistake_is_remarked(write_folder: Callable[..., str]) -> None:
    root = write_folder('image,labels\na.jpg,cat;Dog\nsub/b.jpg,"cat,dog"\nc.jpg,dog\n')
    for name in ("a.jpg", "c.jpg", "d.jpg", ".hidden"):
        (Path(root) / "images").mkdir(exist_ok=True)
        (Path(root) / "images" / name).touch()
    (Path(root) / "images" / "sub").mkdir()
    for name in ("b.jpg", "e.jpg"):
        (Path(root) / "images" / "sub" / name).touch()
    of_comma, of_case, of_file = load_folder(root, "train").remarks
    assert "has the label 'cat,dog': ';' separates several labels" in of_comma
    assert "has the labels 'Dog' and 'dog', which differ in case" in of_case
    assert "does not list 2 of the files in images/, such as d.jpg" in of_file


def test_splits_that_differ_in_case_and_masks_of_no_image_are_remarked(
    write_folder: Callable[..., str],
) -> None:
    root = write_folder("image,labels,split\na.jpg,cat,train\nb.jpg,cat,Train\nc.jpg,cat,val\n")
    write_mask(root, "a", np.zeros((2, 2), np.uint8))
    (Path(root) / "masks" / "b.PNG").touch()
    of_split, of_mask = load_folder(root, "train").remarks
    assert "has the splits 'Train' and 'train', which differ in case" in of_split
    assert "masks/ has 1 files for no image, such as b.PNG" in of_mask


def test_blanks_at_the_end_of_a_cell_mean_nothing(write_folder: Callable[..., str]) -> None:
    root = write_folder("image,labels,split\na.jpg ,cat; dog ,train \nb.jpg,dog,val\n")
    (item,) = load_folder(root, "train").items
    assert item.image_path.endswith("/images/a.jpg")
    assert item.image_labels == (1, 2)


@pytest.mark.parametrize("end", ["\r", "\r\n"])
def test_line_ends_of_other_systems_are_read(write_folder: Callable[..., str], end: str) -> None:
    root = write_folder("")
    (Path(root) / "labels.csv").write_bytes(WITH_SPLITS.replace("\n", end).encode())
    assert [item.image_id for item in load_folder(root, "train").items] == ["a", "c"]


def test_what_is_not_csv_is_refused_with_its_line(write_folder: Callable[..., str]) -> None:
    """Python's parser refuses fields above 131,072 characters: a quote without an end makes one."""
    root = write_folder('image,labels\na.jpg,"cat\n' + "b.jpg,dog\n" * 20_000)
    with pytest.raises(DataError, match=r"labels.csv, line \d+, is not CSV"):
        load_folder(root, "train")


def test_a_folder_without_mistakes_has_no_remark(write_folder: Callable[..., str]) -> None:
    root = write_folder(WITH_SPLITS)
    assert load_folder(root, "train").remarks == ()


def test_rows_without_label_are_dropped_unless_kept(write_folder: Callable[..., str]) -> None:
    root = write_folder("image,labels\na.jpg,cat\nb.jpg,\n")
    assert load_folder(root, "train").num_dropped == 1
    assert len(load_folder(root, "train", keep_unlabelled=True).items) == 2


def test_masks_are_optional_for_each_image(write_folder: Callable[..., str]) -> None:
    root = write_folder("image,labels\na.jpg,cat\nb.jpg,dog\n")
    mask = np.array([[0, 1, 2, 255]], np.uint8)
    write_mask(root, "b", mask)
    first, second = load_folder(root, "train").items
    assert first.read_mask is None
    assert second.read_mask is not None
    np.testing.assert_array_equal(second.read_mask(1, 4), mask)


def test_a_mask_with_an_index_beyond_the_classes_is_refused(
    write_folder: Callable[..., str],
) -> None:
    root = write_folder("image,labels\na.jpg,cat\n")
    write_mask(root, "a", np.array([[0, 2]], np.uint8))
    (item,) = load_folder(root, "train").items
    assert item.read_mask is not None
    with pytest.raises(DataError, match=r"masks/a\.png contains index 2, expected 0\.\.1 or 255"):
        item.read_mask(1, 2)


def test_a_subset_renumbers_masks_and_drops_images(write_folder: Callable[..., str]) -> None:
    root = write_folder("image,labels\na.jpg,cat;dog\nb.jpg,cat\n")
    write_mask(root, "a", np.array([[0, 1, 2]], np.uint8))
    split = load_folder(root, "train", classes=("dog",))
    assert split.description.category_ids == (0, 2)
    assert split.num_dropped == 1
    (item,) = split.items
    assert item.image_labels == (1,)
    assert item.read_mask is not None
    assert item.read_mask(1, 3).tolist() == [[0, 255, 1]]


def test_a_list_replaces_the_split_column(write_folder: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("b\nc\n")
    split = load_folder(write_folder(WITH_SPLITS), "train", list_path=str(tmp_path / "mine.txt"))
    assert [item.image_id for item in split.items] == ["b", "c"]


def test_a_list_that_names_an_unknown_image_is_refused(
    write_folder: Callable[..., str], tmp_path: Path
) -> None:
    (tmp_path / "mine.txt").write_text("b\nzzz\n")
    with pytest.raises(DataError, match="'zzz'"):
        load_folder(write_folder(WITH_SPLITS), "train", list_path=str(tmp_path / "mine.txt"))


def test_a_missing_csv_says_which_columns_it_must_have(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"labels\.csv is missing: .*columns image and labels"):
        load_folder(str(tmp_path), "train")


@pytest.mark.parametrize(
    "header", ["file,labels", "image", "image;labels", "image,labels,size", "Image,Labels", ""]
)
def test_wrong_columns_are_listed_beside_the_expected_ones(
    write_folder: Callable[..., str], header: str
) -> None:
    root = write_folder(f"{header}\na.jpg,cat\n" if header else "")
    with pytest.raises(DataError, match=r"labels\.csv has the columns .*expected image, labels"):
        load_folder(root, "train")


@pytest.mark.parametrize("line", ["b.jpg", ",cat", "b.jpg,cat,dog"])
def test_a_malformed_line_is_given_by_its_number(
    write_folder: Callable[..., str], line: str
) -> None:
    root = write_folder(f"image,labels\na.jpg,cat\n{line}\n")
    with pytest.raises(DataError, match=r"labels\.csv, line 3: expected image,labels .*';'"):
        load_folder(root, "train")


def test_a_label_that_classes_txt_lacks_is_named(write_folder: Callable[..., str]) -> None:
    with pytest.raises(DataError, match=r"uses the label 'dog', which .*classes\.txt does not"):
        load_folder(write_folder(WITH_SPLITS, "cat\n"), "train")


@pytest.mark.parametrize("name", ["cat", "background"])
def test_a_class_list_with_a_name_twice_is_refused(
    write_folder: Callable[..., str], name: str
) -> None:
    with pytest.raises(DataError, match=rf"classes\.txt names the class '{name}'"):
        load_folder(write_folder(WITH_SPLITS, f"cat\ndog\n{name}\n"), "train")


def test_a_path_that_leaves_images_is_listed_as_bad(write_folder: Callable[..., str]) -> None:
    split = load_folder(write_folder("image,labels\n../../x.jpg,cat\na.jpg,cat\n"), "train")
    assert [item.image_id for item in split.items] == ["a"]
    assert "labels.csv: '../../x.jpg' is outside its directory" in split.bad[0][1]


def test_a_csv_that_spreadsheets_save_with_a_byte_order_mark_is_read(
    write_folder: Callable[..., str],
) -> None:
    root = write_folder("")
    Path(root, "labels.csv").write_bytes("image,labels\r\na.jpg,cat\r\n".encode("utf-8-sig"))
    assert [item.image_id for item in load_folder(root, "train").items] == ["a"]


def test_a_csv_that_is_not_utf_8_is_refused(write_folder: Callable[..., str]) -> None:
    root = write_folder("")
    Path(root, "labels.csv").write_bytes("image,labels\né.jpg,cat\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"labels\.csv"):
        load_folder(root, "train")
