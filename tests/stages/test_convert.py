"""Pickled maps become files without pickle, and code in a pickle does not run."""

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from slams_ray.data.imported import read_maps
from slams_ray.errors import DataError
from slams_ray.stages.convert import convert
from slams_ray.stages.convert import run as convert_directory

SIZE = (10, 14)
STORED = (3, 4)


def pickled(content: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.array(content, dtype=object), allow_pickle=True)
    return buffer.getvalue()


@pytest.mark.parametrize("as_tensor", [False, True])
def test_pickled_maps_of_arrays_and_tensors_convert(as_tensor: bool) -> None:
    maps = np.random.default_rng(0).random((2, *STORED)).astype(np.float32)
    content = {"keys": np.array([4, 0]), "cam": maps}
    if as_tensor:
        content = {name: torch.from_numpy(value) for name, value in content.items()}
    found = read_maps(convert(pickled(content), "a.npy"), "a.npz", [1, 5], SIZE)
    np.testing.assert_array_equal(found, (maps[::-1] * 255).round().astype(np.uint8))


def test_high_resolution_wins_over_the_small_maps() -> None:
    content = {
        "keys": np.array([0]),
        "cam": np.zeros((1, *STORED)),
        "high_res": np.ones((1, *SIZE)),
    }
    assert read_maps(convert(pickled(content), "a.npy"), "a.npz", [1], SIZE).min() == 255


class _Code:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_code_in_a_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    target = tmp_path / "touched"
    data = pickled({"keys": _Code(target)})
    assert pickle.loads(pickle.dumps(_Code(target))) is None
    assert target.exists(), "the pickle would run code"
    target.unlink()
    with pytest.raises(DataError, match=r"a\.npy.*asks for .*not run"):
        convert(data, "a.npy")
    assert not target.exists()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"hello", "truncated or not a .npy"),
        (pickled({"keys": np.array([0]), "cam": np.ones((1, 3, 4))})[:-30], "a.npy"),
        (pickled([1, 2]), "no dictionary with keys"),
        (pickled({"keys": np.array([0])}), "expected high_res or cam"),
    ],
)
def test_other_pickles_are_named(data: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        convert(data, "a.npy")


def test_a_directory_converts_once_and_says_where_nothing_is(tmp_path: Path) -> None:
    (tmp_path / "a.npy").write_bytes(pickled({"keys": np.array([0]), "cam": np.ones((1, *STORED))}))
    assert convert_directory(str(tmp_path), str(tmp_path / "out")) == 1
    written = tmp_path / "out" / "a.npz"
    before = written.stat().st_mtime_ns
    assert convert_directory(str(tmp_path), str(tmp_path / "out")) == 1
    assert written.stat().st_mtime_ns == before
    with pytest.raises(DataError, match=r"has no \.npy files"):
        convert_directory(str(tmp_path / "out"), str(tmp_path))
