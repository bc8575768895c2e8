"""Lock files that are renewed and replaced only if nobody else changed them."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from slams_ray import storage
from slams_ray.errors import ArtifactError


class LockFile(Protocol):
    """A file with a version that changes with each write.

    An operation with an outdated version does nothing.
    """

    def read(self) -> tuple[bytes, str] | None:
        """Returns content and version; None if the file does not exist."""

    def create(self, data: bytes) -> str | None:
        """Creates the file and returns its version; None if the file exists."""

    def renew(self, data: bytes, version: str) -> str | None:
        """Renews the own file and returns its new version; None if its version has changed."""

    def replace(self, data: bytes, version: str) -> str | None:
        """Replaces another process's file and returns the version; None if it has changed."""

    def remove(self, version: str) -> None:
        """Removes the file if it has this version."""


def lock_file(path: str) -> LockFile | None:
    """Returns the lock file at a local path or s3:// URI; None for other stores."""
    if path.startswith("s3://"):
        return S3LockFile(path)
    if "://" in path and not path.startswith("file://"):
        return None
    return LocalLockFile(Path(storage.resolve(path)[1]))


class LocalLockFile:
    """A local file that is created exclusively. Its version is inode and modification time."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> tuple[bytes, str] | None:
        try:
            with self.path.open("rb") as file:
                return file.read(), _version(os.fstat(file.fileno()))
        except FileNotFoundError:
            return None

    def create(self, data: bytes) -> str | None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        except FileExistsError:
            return None
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            return _version(os.fstat(file.fileno()))

    def renew(self, data: bytes, version: str) -> str | None:
        """Changes the modification time only, so that nobody reads a half-written file."""
        found = self.read()
        if found is None or found[1] != version:
            return None
        os.utime(self.path)
        return _version(self.path.stat())

    def replace(self, data: bytes, version: str) -> str | None:
        aside = self.path.with_name(f"{self.path.name}.{uuid.uuid4().hex}")
        try:
            # Only one of several processes that see the same file can rename it.
            self.path.rename(aside)
        except FileNotFoundError:
            return None
        try:
            if _version(aside.stat()) == version:
                return self.create(data)
            self._put_back(aside)
            return None
        finally:
            aside.unlink()

    def _put_back(self, aside: Path) -> None:
        try:
            os.link(aside, self.path)
        except FileExistsError:
            return

    def remove(self, version: str) -> None:
        found = self.read()
        if found is not None and found[1] == version:
            self.path.unlink()


def _version(status: os.stat_result) -> str:
    return f"{status.st_ino}-{status.st_mtime_ns}"


class S3LockFile:
    """An S3 object that is written by conditional requests. Its version is its ETag."""

    def __init__(self, uri: str) -> None:
        import boto3
        from botocore.config import Config

        bucket, _, key = uri.removeprefix("s3://").partition("/")
        self.uri = uri
        self._address = {"Bucket": bucket, "Key": key}
        self._client = boto3.client("s3", config=Config(connect_timeout=10, read_timeout=10))

    def read(self) -> tuple[bytes, str] | None:
        with _answered(self.uri, "NoSuchKey"):
            found = self._client.get_object(**self._address)
            return found["Body"].read(), found["ETag"]
        return None

    def create(self, data: bytes) -> str | None:
        return self._put(data, IfNoneMatch="*")

    def renew(self, data: bytes, version: str) -> str | None:
        return self._put(data, IfMatch=version)

    def replace(self, data: bytes, version: str) -> str | None:
        return self._put(data, IfMatch=version)

    def remove(self, version: str) -> None:
        found = self.read()
        if found is not None and found[1] == version:
            with _answered(self.uri):
                self._client.delete_object(**self._address)

    def _put(self, data: bytes, **condition: str) -> str | None:
        with _answered(self.uri, *_UNMET):
            tag: str = self._client.put_object(**self._address, Body=data, **condition)["ETag"]
            return tag
        return None


_UNMET = ("PreconditionFailed", "ConditionalRequestConflict", "NoSuchKey", "404")


@contextmanager
def _answered(uri: str, *expected: str) -> Iterator[None]:
    """Ignores the expected error codes and raises ArtifactError for others."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except (BotoCoreError, ClientError) as error:
        code = getattr(error, "response", {}).get("Error", {}).get("Code")
        if code not in expected:
            raise ArtifactError(
                f"{uri} cannot be locked ({error}): check the bucket, its support of conditional "
                "writes (If-None-Match), and the credentials and AWS_ENDPOINT_URL in the "
                "environment"
            ) from error
