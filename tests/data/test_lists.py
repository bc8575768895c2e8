from pathlib import Path

import pytest

from slams_ray.data.image import IMAGE_SUFFIXES
from slams_ray.data.lists import read_id_list
from slams_ray.errors import DataError


def test_ids_come_in_file_order_without_blank_lines(tmp_path: Path) -> None:
    (tmp_path / "l.txt").write_text("b\r\n\n  a  \nc")
    assert read_id_list(str(tmp_path / "l.txt")) == ["b", "a", "c"]


@pytest.mark.parametrize(
    "line",
    [
        "2007_01",
        "2007_01.jpg",
        "/JPEGImages/2007_01.jpg /SegmentationClass/2007_01.png",
        "2007_01 -1",
    ],
)
def test_an_id_is_the_stem_of_the_path_whatever_voc_writes_behind_it(
    tmp_path: Path, line: str
) -> None:
    (tmp_path / "l.txt").write_text(line)
    assert read_id_list(str(tmp_path / "l.txt")) == ["2007_01"]


def test_a_name_may_hold_blanks(tmp_path: Path) -> None:
    (tmp_path / "l.txt").write_text("my holiday 1.jpg\nmy holiday 2.jpg\nbeach in June\n")
    found = read_id_list(str(tmp_path / "l.txt"))
    assert found == ["my holiday 1", "my holiday 2", "beach in June"]


def test_a_dot_that_starts_no_image_suffix_stays(tmp_path: Path) -> None:
    (tmp_path / "l.txt").write_text("v1.2\nv1.3.JPG\n")
    assert read_id_list(str(tmp_path / "l.txt")) == ["v1.2", "v1.3"]


def test_a_byte_order_mark_is_no_part_of_the_first_id(tmp_path: Path) -> None:
    (tmp_path / "l.txt").write_bytes("a\nb\n".encode("utf-8-sig"))
    assert read_id_list(str(tmp_path / "l.txt")) == ["a", "b"]


def test_a_missing_list_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"l\.txt is missing: check data\.root, the split names"):
        read_id_list(str(tmp_path / "l.txt"))


@pytest.mark.parametrize("content", ["", "\n  \n"])
def test_an_empty_list_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "l.txt").write_text(content)
    with pytest.raises(DataError, match=r"l\.txt is empty: it must name one image id per line"):
        read_id_list(str(tmp_path / "l.txt"))


def test_an_id_that_stands_twice_is_named(tmp_path: Path) -> None:
    (tmp_path / "l.txt").write_text("a\nb\nc\nb.jpg\n")
    with pytest.raises(DataError, match=r"l\.txt names 'b' twice: name each image once"):
        read_id_list(str(tmp_path / "l.txt"))


def test_a_list_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "l.txt").write_bytes(b"caf\xe9\n")
    with pytest.raises(DataError, match=r"l\.txt"):
        read_id_list(str(tmp_path / "l.txt"))


@pytest.mark.parametrize("suffix", [*IMAGE_SUFFIXES, ".WEBP"])
def test_the_suffix_of_every_kind_of_image_is_no_part_of_its_id(
    tmp_path: Path, suffix: str
) -> None:
    (tmp_path / "l.txt").write_text(f"images/my photo{suffix}\nb{suffix} other{suffix}\n")
    assert read_id_list(str(tmp_path / "l.txt")) == ["my photo", "b"]
