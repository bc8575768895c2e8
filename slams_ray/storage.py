"""File access at local paths and URIs (s3://, gs://) with pyarrow.fs. Writes are atomic."""

import os
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from slams_ray.errors import ArtifactError, ConfigError
from slams_ray.redaction import holds_password, redacted
from slams_ray.retries import is_refusal, retried

Result = TypeVar("Result")

REMAKE = "remove its directory, the next run makes it again"
"""What to do with a damaged shard that a stage wrote."""


def join(*parts: str) -> str:
    """Joins path or URI parts with single slashes."""
    head, *tail = (part for part in parts if part)
    return "/".join([head.rstrip("/"), *(part.strip("/") for part in tail)])


def absolute(path: str) -> str:
    """Makes a local path absolute, because Ray workers have other directories.

    One place has one name: a URI loses its last slash, and `file://` becomes a local path.
    """
    if path.startswith("file://"):
        path = "/" + path.removeprefix("file://").lstrip("/")
    return path.rstrip("/") if "://" in path else str(Path(path).expanduser().resolve())


@lru_cache(maxsize=8)
def _filesystem(scheme_and_host: str) -> fs.FileSystem:
    # Without this option every file, however small, is a multipart upload of three requests.
    one_request = "?allow_delayed_open=true" if scheme_and_host.startswith("s3://") else ""
    return fs.FileSystem.from_uri(scheme_and_host + one_request)[0]


@contextmanager
def _reached(path: str) -> Iterator[None]:
    """Raises ArtifactError if the store does not answer or denies access.

    A caller must not mistake such an error for a missing file.
    """
    try:
        yield
    except FileNotFoundError:
        raise
    except (pa.ArrowInvalid, OSError) as error:
        raise ArtifactError(
            f"{path} cannot be reached ({error}): check the path, the bucket, and the credentials "
            "and AWS_ENDPOINT_URL in the environment"
        ) from error


def resolve(path: str) -> tuple[fs.FileSystem, str]:
    """Returns the filesystem of a path or URI, and the path within it.

    Raises:
        ConfigError: the URI contains a password; paths are logged and recorded.
    """
    if holds_password(path):
        raise ConfigError(
            f"{redacted(path)} contains a password: remove it from the address and set credentials "
            "in the environment instead (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, for example)"
        )
    if "://" not in path or path.startswith("file://"):
        return _filesystem("file:///"), absolute(path)
    scheme, inner = path.split("://", 1)
    with _reached(path):
        return _filesystem(f"{scheme}://{inner.split('/', 1)[0]}/"), inner


def exists(path: str) -> bool:
    """Whether a file exists at the path. Raises as `size_bytes`."""
    return size_bytes(path) is not None


def size_bytes(path: str) -> int | None:
    """Returns the size of a file; None if it does not exist.

    Raises:
        ArtifactError: the store refuses to tell, or does not answer for a minute.
    """
    filesystem, inner = resolve(path)
    with _reached(path):
        info = retried(path, lambda: filesystem.get_file_info(inner))
    return info.size if info.type == fs.FileType.File else None


def list_names(path: str) -> list[str]:
    """Returns a directory's sorted names; empty if it does not exist. Raises as `size_bytes`."""
    filesystem, inner = resolve(path)
    selector = fs.FileSelector(inner, allow_not_found=True)
    with _reached(path):
        entries = retried(path, lambda: filesystem.get_file_info(selector))
    return sorted(info.base_name for info in entries)


def list_files(path: str) -> list[str]:
    """Returns the sorted relative paths of files below a directory, as `list_states` does."""
    return [name for name, _, _ in list_states(path)]


def list_states(path: str) -> list[tuple[str, int, int]]:
    """Returns sorted (relative path, size, modification time in ns) of files below a directory.

    It is empty if the directory does not exist. Raises as `size_bytes`.
    """
    filesystem, inner = resolve(path)
    selector = fs.FileSelector(inner, recursive=True, allow_not_found=True)
    with _reached(path):
        entries = retried(path, lambda: filesystem.get_file_info(selector))
    files = [info for info in entries if info.type == fs.FileType.File]
    return sorted(
        (info.path.removeprefix(inner).lstrip("/"), info.size, info.mtime_ns) for info in files
    )


def read_bytes(path: str) -> bytes:
    """Reads a file.

    Raises:
        FileNotFoundError: the file does not exist.
        ArtifactError: the store refuses the read; passing errors are retried for a minute.
    """
    filesystem, inner = resolve(path)

    def read() -> bytes:
        with filesystem.open_input_stream(inner) as stream:
            return stream.read()

    return _read(path, read)


def _read(path: str, read: Callable[[], Result]) -> Result:
    """Reads with retries; a refusal by the store must not be mistaken for a damaged file."""
    try:
        return retried(path, read)
    except OSError as error:
        if not is_refusal(error):
            raise
        raise ArtifactError(
            f"{path} cannot be read ({error}): the file may be intact, so keep it. Check the store "
            "and the credentials, then run the same command again"
        ) from error


def write_bytes(path: str, data: bytes) -> None:
    """Writes a file atomically: by renaming a temporary file, or in one request to a store.

    Raises:
        ArtifactError: the file cannot be written; passing errors are retried for a minute.
    """
    filesystem, inner = resolve(path)
    try:
        retried(path, lambda: _write_once(filesystem, inner, data))
    except OSError as error:
        raise ArtifactError(
            f"{path} cannot be written ({error}): free space or choose another --workspace; "
            "finished outputs are kept"
        ) from error


def _write_once(filesystem: fs.FileSystem, inner: str, data: bytes) -> None:
    if isinstance(filesystem, fs.LocalFileSystem):
        _write_local(Path(inner), data)
        return
    with filesystem.open_output_stream(inner) as stream:
        stream.write(data)


def _write_local(target: Path, data: bytes) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
    try:
        with aside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(target)
    finally:
        aside.unlink(missing_ok=True)


def remove(path: str) -> None:
    """Removes a file."""
    filesystem, inner = resolve(path)
    retried(path, lambda: filesystem.delete_file(inner))


def remove_directory(path: str) -> None:
    """Removes a directory with everything in it."""
    filesystem, inner = resolve(path)
    retried(path, lambda: filesystem.delete_dir(inner))


def write_table(path: str, table: pa.Table, rows_per_group: int | None = None) -> None:
    """Writes a table as zstd Parquet; the footer, which has the number of rows, comes last."""
    sink = pa.BufferOutputStream()
    # Encoded images and packed maps do not repeat: dictionaries would only cost time and space.
    pq.write_table(
        table,
        sink,
        compression="zstd",
        use_dictionary=False,
        write_statistics=False,
        row_group_size=rows_per_group,
    )
    write_bytes(path, sink.getvalue())


def read_table(path: str, columns: list[str] | None = None, remedy: str = REMAKE) -> pa.Table:
    """Reads a Parquet file or some of its columns.

    Args:
        remedy: what a message advises where the file is damaged.

    Raises:
        ArtifactError: the file is missing, truncated or unreadable, or has no such column.
    """

    def read() -> pa.Table:
        with _open_table(path, columns) as file:
            return file.read(columns=columns)

    with _undamaged(path, remedy):
        return _read(path, read)


def read_row_groups(
    path: str, columns: list[str], groups: Sequence[int] | None = None
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields (row number, row) of the given row groups of a Parquet file; None reads all."""
    with _undamaged(path), _read(path, lambda: _open_table(path, columns)) as file:
        sizes = [file.metadata.row_group(g).num_rows for g in range(file.num_row_groups)]
        for group in range(len(sizes)) if groups is None else groups:
            rows = _read(path, partial(_rows, file, group, columns))
            yield from enumerate(rows, start=sum(sizes[:group]))


def _rows(file: pq.ParquetFile, group: int, columns: list[str]) -> list[dict[str, Any]]:
    # A row group is small: threads would add a quarter to the time of a read.
    return file.read_row_group(group, columns=columns, use_threads=False).to_pylist()


def _open_table(path: str, columns: list[str] | None) -> pq.ParquetFile:
    filesystem, inner = resolve(path)
    # Joining reads saves requests to an object store; on a disk it takes as long as the reads.
    remote = not isinstance(filesystem, fs.LocalFileSystem)
    file = pq.ParquetFile(inner, filesystem=filesystem, pre_buffer=remote)
    missing = set(columns or []) - set(file.schema_arrow.names)
    if missing:
        file.close()
        raise ArtifactError(
            f"{path} has no column {sorted(missing)}, found {file.schema_arrow.names}"
        )
    return file


@contextmanager
def _undamaged(path: str, remedy: str = REMAKE) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowInvalid, OSError) as error:
        raise ArtifactError(f"{path} is missing or truncated ({error}): {remedy}") from error


def table_metadata(path: str) -> dict[str, str] | None:
    """Returns the key-value metadata of a Parquet file; None if it is missing or damaged.

    Raises:
        ArtifactError: the store or disk refuses the read.
    """
    filesystem, inner = resolve(path)

    def read() -> dict[str, str] | None:
        with pq.ParquetFile(inner, filesystem=filesystem) as file:
            metadata = file.schema_arrow.metadata
            groups = [file.metadata.row_group(g) for g in range(file.num_row_groups)]
            whole = file.metadata.num_rows == sum(group.num_rows for group in groups)
        return {k.decode(): v.decode() for k, v in (metadata or {}).items()} if whole else None

    try:
        return _read(path, read)
    except (pa.ArrowInvalid, OSError):
        return None
