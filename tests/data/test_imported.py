import io
from typing import Any

import numpy as np
import pytest

from slams_ray.data.imported import read_maps
from slams_ray.errors import DataError

SIZE = (10, 14)
STORED = (3, 4)


def npz(classes: Any, maps: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, classes=np.asarray(classes), maps=maps)
    return buffer.getvalue()


def random_maps(number: int, size: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(0).random((number, *size)).astype(np.float32)


def test_stored_size_is_only_rounded_and_follows_the_order_of_the_labels() -> None:
    maps = random_maps(2, STORED)
    found = read_maps(npz([5, 2], maps), "a.npz", [2, 5], SIZE)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, (maps[::-1] * 255).round().astype(np.uint8))


def test_maps_of_image_size_are_averaged_to_stride_4() -> None:
    maps = np.zeros((1, *SIZE), np.float32)
    maps[:, :, 7:] = 1
    found = read_maps(npz([1], maps), "a.npz", [1], SIZE)
    assert found.shape == (1, *STORED)
    assert found[0, :, 0].max() == 0
    assert found[0, :, -1].min() == 255
    assert abs(found.mean() / 255 - 0.5) < 0.05


def test_an_image_without_labels_has_no_maps() -> None:
    found = read_maps(npz(np.zeros(0, int), np.zeros((0, *STORED))), "a.npz", [], SIZE)
    assert found.shape == (0, *STORED)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"PK\x03\x04 not", "not an npz file"),
        (npz([1], random_maps(1, STORED))[:-40], "not an npz file"),
        (npz([1, 2], random_maps(1, STORED)), r"expected \(P,\)"),
        (npz([2], random_maps(1, STORED)), r"maps of the classes \[2\].*labels \[1\]"),
        (npz([1], random_maps(1, (5, 7))), r"\(5, 7\), expected \(10, 14\)"),
        (npz([1], np.full((1, *STORED), "a")), "has maps of <U1, expected numbers"),
        (npz([1], 2 * np.ones((1, *STORED))), r"from 2 to 2, expected \[0, 1\]"),
        (npz([1], np.full((1, *STORED), np.nan)), r"expected \[0, 1\]"),
    ],
)
def test_wrong_files_are_named_with_what_was_expected(data: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read_maps(data, "maps/a.npz", [1], SIZE)
    assert "maps/a.npz" in str(caught.value)
