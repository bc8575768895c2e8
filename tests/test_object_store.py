"""Storage on S3: what is written appears whole or not at all, and is found again."""

import threading
from collections.abc import Callable, Iterator

import boto3
import pyarrow as pa
import pytest
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

from slams_ray import retries, storage
from slams_ray.errors import ArtifactError


@pytest.fixture
def directory(object_store: str, request: pytest.FixtureRequest) -> str:
    return f"{object_store}/storage/{request.node.name}"


def keys(directory: str) -> list[str]:
    """Every object below, as S3 tells it and pyarrow has no say."""
    bucket, prefix = directory.removeprefix("s3://").split("/", 1)
    found = boto3.client("s3").list_objects_v2(Bucket=bucket, Prefix=prefix)
    return [entry["Key"].removeprefix(prefix) for entry in found.get("Contents", [])]


def test_a_file_is_one_object_and_comes_back(directory: str) -> None:
    path = storage.join(directory, "a/b.bin")
    storage.write_bytes(path, b"first")
    storage.write_bytes(path, b"second")
    assert keys(directory) == ["/a/b.bin"]
    assert storage.read_bytes(path) == b"second"
    assert (storage.exists(path), storage.size_bytes(path)) == (True, 6)


def test_what_is_not_there_is_told_apart_from_what_is(directory: str) -> None:
    storage.write_bytes(f"{directory}/a/b.bin", b"x")
    for missing in ("a", "a/b", "a/b.bin2", "c"):
        assert not storage.exists(f"{directory}/{missing}")
    with pytest.raises(FileNotFoundError):
        storage.read_bytes(f"{directory}/c")
    with pytest.raises(ArtifactError, match=r"c\.parquet is missing or truncated"):
        storage.read_table(f"{directory}/c.parquet")
    assert storage.table_metadata(f"{directory}/c.parquet") is None


def test_listings_are_sorted_and_empty_where_nothing_is(directory: str) -> None:
    for name in ("b", "a/y", "a/x", "c"):
        storage.write_bytes(f"{directory}/{name}", b"x")
    assert storage.list_names(directory) == ["a", "b", "c"]
    assert storage.list_files(directory) == ["a/x", "a/y", "b", "c"]
    assert storage.list_names(f"{directory}/none") == storage.list_files(f"{directory}/none") == []


def test_a_removed_file_is_gone_and_its_neighbour_stays(directory: str) -> None:
    for name in ("a/x", "a/y", "b/x"):
        storage.write_bytes(f"{directory}/{name}", b"x")
    storage.remove(f"{directory}/a/x")
    assert storage.list_files(directory) == ["a/y", "b/x"]
    storage.remove(f"{directory}/b/x")
    assert storage.list_files(directory) == ["a/y"]


def test_a_table_is_read_by_columns_and_row_groups(directory: str) -> None:
    path = f"{directory}/t.parquet"
    table = pa.table({"number": list(range(10)), "text": ["x"] * 10})
    storage.write_table(path, table.replace_schema_metadata({"k": "v"}), rows_per_group=4)
    assert storage.read_table(path, ["number"])["number"].to_pylist() == list(range(10))
    assert [n for n, _ in storage.read_row_groups(path, ["number"], [2])] == [8, 9]
    assert storage.table_metadata(path) == {"k": "v"}


def test_a_bucket_that_is_not_there_is_named() -> None:
    with pytest.raises(ArtifactError, match=r"s3://nobody/a cannot be written .*NO_SUCH_BUCKET"):
        storage.write_bytes("s3://nobody/a", b"x")


class Refusing:
    """The S3 server, in front of it something that loses one request in the middle."""

    def __init__(self) -> None:
        self.store = DomainDispatcherApplication(create_backend_app)
        self.lost, self.status, self.times = "", "403 Forbidden", 1000
        self.requests: list[str] = []

    def __call__(self, environ, start_response):  # type: ignore[no-untyped-def]
        request = f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}?{environ['QUERY_STRING']}"
        self.requests.append(request)
        if self.lost and self.lost in request and self.times:
            self.times -= 1
            start_response(self.status, [("Content-Length", "0")])
            return [b""]
        return self.store(environ, start_response)


@pytest.fixture
def refusing(monkeypatch: pytest.MonkeyPatch) -> Iterator[Refusing]:
    application = Refusing()
    server = make_server("127.0.0.1", 0, application, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
    boto3.client("s3").create_bucket(Bucket="refusing")
    storage._filesystem.cache_clear()
    yield application
    storage._filesystem.cache_clear()
    server.shutdown()
    thread.join()


PART_BYTES = 10 * 2**20


@pytest.mark.parametrize(
    ("num_bytes", "lost"),
    [(100, "PUT "), (2 * PART_BYTES + 5, "partNumber=2"), (2 * PART_BYTES + 5, "?uploadId")],
)
def test_a_writer_that_fails_in_the_middle_leaves_no_object(
    refusing: Refusing, num_bytes: int, lost: str
) -> None:
    # The server keeps what earlier tests wrote.
    path = f"s3://refusing/{num_bytes}{lost.strip('? ')}.bin"
    refusing.lost = lost
    with pytest.raises(ArtifactError, match=r"s3://refusing/\S+\.bin cannot be written"):
        storage.write_bytes(path, bytes(num_bytes))
    assert any(lost in request for request in refusing.requests)
    refusing.lost = ""
    assert not storage.exists(path)
    storage.write_bytes(path, bytes(num_bytes))
    assert storage.size_bytes(path) == num_bytes


def test_a_small_file_is_written_by_one_request(refusing: Refusing) -> None:
    refusing.requests.clear()
    storage.write_bytes("s3://refusing/a.json", b"{}")
    assert [request.split("?")[0] for request in refusing.requests] == ["PUT /refusing/a.json"]


def test_a_store_that_refuses_us_is_no_missing_file(refusing: Refusing) -> None:
    refusing.lost = "/refusing"
    for look in (storage.exists, storage.list_names, storage.list_files):
        with pytest.raises(ArtifactError, match=r"s3://refusing/a cannot be reached .*credentials"):
            look("s3://refusing/a")


@pytest.fixture
def shard(refusing: Refusing) -> str:
    path = "s3://refusing/reads/t.parquet"
    storage.write_table(path, pa.table({"k": [1]}).replace_schema_metadata({"k": "v"}))
    return path


@pytest.mark.slow
def test_a_read_that_a_busy_store_refuses_is_tried_again(
    refusing: Refusing, shard: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries, "FIRST_PAUSE_SECONDS", 0.01)
    # More often than the AWS SDK, which tries for 6 s, does by itself.
    refusing.lost, refusing.status, refusing.times = "/refusing", "503 Slow Down", 35
    assert storage.table_metadata(shard) == {"k": "v"}
    assert refusing.times == 0


@pytest.mark.parametrize(
    "read",
    [
        storage.read_bytes,
        storage.read_table,
        storage.table_metadata,
        lambda path: list(storage.read_row_groups(path, ["k"])),
    ],
)
def test_a_store_that_refuses_is_neither_a_damaged_nor_a_missing_shard(
    refusing: Refusing, shard: str, read: Callable[[str], object]
) -> None:
    refusing.lost = "/refusing"
    with pytest.raises(ArtifactError, match=r"t\.parquet cannot be read .*keep it") as found:
        read(shard)
    assert "remove" not in str(found.value)
