import errno
import resource
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from fsspec.implementations.local import LocalFileSystem
from pyarrow import fs

from slams_ray import retries, storage
from slams_ray.errors import ArtifactError


def numbered_table(num_rows: int) -> pa.Table:
    return pa.table(
        {"number": list(range(num_rows)), "text": [f"row {i}" for i in range(num_rows)]}
    )


def files_below(directory: Path) -> list[str]:
    return sorted(p.name for p in directory.rglob("*") if p.is_file())


def test_write_bytes_makes_the_directories_and_leaves_one_file(tmp_path: Path) -> None:
    storage.write_bytes(str(tmp_path / "a/b/c.bin"), b"content")
    assert (tmp_path / "a/b/c.bin").read_bytes() == b"content"
    assert files_below(tmp_path) == ["c.bin"]


def test_write_bytes_replaces_an_older_file_whole(tmp_path: Path) -> None:
    path = str(tmp_path / "a.bin")
    storage.write_bytes(path, b"a long first content")
    storage.write_bytes(path, b"short")
    assert storage.read_bytes(path) == b"short"
    assert files_below(tmp_path) == ["a.bin"]


def test_writing_over_a_directory_fails_and_leaves_no_trace(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(ArtifactError, match=r"taken cannot be written .*free space or choose"):
        storage.write_bytes(str(tmp_path / "taken"), b"content")
    assert files_below(tmp_path) == []


def test_writing_below_a_file_fails_and_names_the_path(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"kept")
    with pytest.raises(ArtifactError, match=r"file/below\.bin cannot be written"):
        storage.write_bytes(str(tmp_path / "file/below.bin"), b"content")
    assert (tmp_path / "file").read_bytes() == b"kept"
    assert files_below(tmp_path) == ["file"]


def test_exists_and_size_are_about_files_only(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"12345")
    assert storage.exists(str(tmp_path / "a.bin"))
    assert storage.size_bytes(str(tmp_path / "a.bin")) == 5
    assert not storage.exists(str(tmp_path))
    assert storage.size_bytes(str(tmp_path / "missing")) is None


def test_list_names_is_sorted_and_empty_for_a_missing_directory(tmp_path: Path) -> None:
    for name in ("b", "c", "a"):
        (tmp_path / name).touch()
    assert storage.list_names(str(tmp_path)) == ["a", "b", "c"]
    assert storage.list_names(str(tmp_path / "missing")) == []


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        (("/data/", "/a/", "b.txt"), "/data/a/b.txt"),
        (("s3://bucket/", "coco", "train"), "s3://bucket/coco/train"),
        (("relative", "a"), "relative/a"),
        (("only",), "only"),
    ],
)
def test_join_puts_single_slashes(parts: tuple[str, ...], expected: str) -> None:
    assert storage.join(*parts) == expected


def test_absolute_resolves_local_paths_and_leaves_uris(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert storage.absolute("runs/demo") == str(tmp_path.resolve() / "runs/demo")
    assert storage.absolute("~") == str(Path.home().resolve())
    assert storage.absolute("s3://bucket/runs") == "s3://bucket/runs"


def test_one_place_has_one_absolute_name(tmp_path: Path) -> None:
    assert storage.absolute("s3://bucket/runs/") == "s3://bucket/runs"
    assert storage.absolute(f"file://{tmp_path}/") == str(tmp_path.resolve())
    storage.write_bytes(f"file://{tmp_path}/a.bin", b"content")
    assert storage.read_bytes(str(tmp_path / "a.bin")) == b"content"


def test_a_file_uri_and_its_plain_path_are_the_same_file(tmp_path: Path) -> None:
    uri = f"file://{tmp_path}/a/b.bin"
    assert storage.resolve(uri)[1] == storage.resolve(f"{tmp_path}/a/b.bin")[1]
    storage.write_bytes(uri, b"content")
    assert storage.read_bytes(f"{tmp_path}/a/b.bin") == b"content"
    assert storage.list_names(f"file://{tmp_path}/a") == ["b.bin"]


def test_a_table_comes_back_as_written(tmp_path: Path) -> None:
    path = str(tmp_path / "t.parquet")
    storage.write_table(path, numbered_table(7))
    assert storage.read_table(path).equals(numbered_table(7))
    assert storage.read_table(path, ["text"]).column_names == ["text"]
    assert files_below(tmp_path) == ["t.parquet"]


def test_read_table_of_a_missing_file_names_it(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"t\.parquet is missing or truncated.*makes it again"):
        storage.read_table(str(tmp_path / "t.parquet"))


def test_read_table_of_a_missing_column_lists_those_found(tmp_path: Path) -> None:
    path = str(tmp_path / "t.parquet")
    storage.write_table(path, numbered_table(3))
    with pytest.raises(ArtifactError, match=r"t\.parquet has no column \['mask'\].*'number'"):
        storage.read_table(path, ["number", "mask"])


@pytest.mark.parametrize("kept", [0.0, 0.01, 0.3, 0.9, 0.999])
def test_a_truncated_table_is_refused_at_any_length(tmp_path: Path, kept: float) -> None:
    path = tmp_path / "t.parquet"
    storage.write_table(str(path), numbered_table(500))
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(ArtifactError, match=r"t\.parquet is missing or truncated"):
        storage.read_table(str(path))
    assert storage.table_metadata(str(path)) is None


def test_row_groups_keep_the_row_numbers_of_the_file(tmp_path: Path) -> None:
    path = str(tmp_path / "t.parquet")
    storage.write_table(path, numbered_table(10), rows_per_group=4)
    rows = list(storage.read_row_groups(path, ["number"], [2, 0]))
    assert [number for number, _ in rows] == [8, 9, 0, 1, 2, 3]
    assert all(row == {"number": number} for number, row in rows)
    everything = [number for number, _ in storage.read_row_groups(path, ["number"])]
    assert everything == list(range(10))


def test_row_groups_of_a_missing_column_are_refused(tmp_path: Path) -> None:
    path = str(tmp_path / "t.parquet")
    storage.write_table(path, numbered_table(3))
    with pytest.raises(ArtifactError, match="has no column"):
        list(storage.read_row_groups(path, ["mask"]))


def test_table_metadata_returns_the_key_value_pairs(tmp_path: Path) -> None:
    path = str(tmp_path / "t.parquet")
    storage.write_table(path, numbered_table(3).replace_schema_metadata({"rows": "3"}))
    metadata = storage.table_metadata(path)
    assert metadata is not None
    assert metadata["rows"] == "3"
    assert storage.table_metadata(str(tmp_path / "missing.parquet")) is None


def test_a_full_disk_is_waited_for(tmp_path: Path) -> None:
    """No file may grow, as on a full disk, until a timer lifts the limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    def lift() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))

    timer = threading.Timer(0.3, lift)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    timer.start()
    try:
        storage.write_bytes(str(tmp_path / "a.bin"), b"content")
    finally:
        timer.join()
        signal.signal(signal.SIGXFSZ, ignored)
    assert (tmp_path / "a.bin").read_bytes() == b"content"
    assert files_below(tmp_path) == ["a.bin"]


def test_patience_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "PATIENCE_SECONDS", 0.1)
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        with pytest.raises(ArtifactError, match=r"a\.bin cannot be written .*File too large"):
            storage.write_bytes(str(tmp_path / "a.bin"), b"content")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))


class Refusing(LocalFileSystem):
    """A disk that fails to read several times."""

    cachable = False
    times = 0

    def _refuse(self) -> None:
        if self.times:
            self.times -= 1
            raise OSError(errno.EIO, "Input/output error")

    def info(self, *args: Any, **kwargs: Any) -> Any:
        self._refuse()
        return super().info(*args, **kwargs)

    def open(self, *args: Any, **kwargs: Any) -> Any:
        self._refuse()
        return super().open(*args, **kwargs)

    def find(self, *args: Any, **kwargs: Any) -> Any:
        self._refuse()
        return super().find(*args, **kwargs)


READS: dict[str, Callable[[str], object]] = {
    "exists": storage.exists,
    "list_names": lambda path: storage.list_names(path.rpartition("/")[0]),
    "list_files": lambda path: storage.list_files(path.rpartition("/")[0]),
    "read_bytes": storage.read_bytes,
    "read_table": lambda path: storage.read_table(path, ["number"]),
    "read_row_groups": lambda path: list(storage.read_row_groups(path, ["number"])),
    "table_metadata": storage.table_metadata,
}


@pytest.fixture
def refusing(monkeypatch: pytest.MonkeyPatch) -> Refusing:
    disk = Refusing()
    filesystem = fs.PyFileSystem(fs.FSSpecHandler(disk))
    monkeypatch.setattr(storage, "resolve", lambda path: (filesystem, path))
    monkeypatch.setattr(retries, "FIRST_PAUSE_SECONDS", 0.01)
    return disk


@pytest.mark.parametrize("name", READS)
def test_reads_that_fail_for_a_while_are_tried_again(
    tmp_path: Path, refusing: Refusing, name: str
) -> None:
    path = str(tmp_path / "t.parquet")
    storage.write_table(path, numbered_table(10), rows_per_group=4)
    expected = READS[name](path)
    refusing.times = 3
    assert READS[name](path) == expected
    assert refusing.times == 0


@pytest.mark.parametrize("name", ["read_bytes", "read_table", "read_row_groups", "table_metadata"])
def test_a_disk_that_goes_on_failing_is_no_damaged_file(
    tmp_path: Path, refusing: Refusing, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries, "PATIENCE_SECONDS", 0.0)
    path = str(tmp_path / "t.parquet")
    storage.write_table(path, numbered_table(10))
    refusing.times = 1000
    with pytest.raises(ArtifactError, match=r"t\.parquet cannot be read .*so keep it"):
        READS[name](path)
