"""Mapping shards through Ray Data: order, resume, errors, alignment."""

import gc
import os
import platform
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from slams_ray import storage
from slams_ray.errors import ArtifactError, DataError
from slams_ray.runtime.finished_shards import read_note, worked
from slams_ray.runtime.pools import Pool
from slams_ray.runtime.shards import ShardInput, ShardJob, ShardMapper, run_shards, sum_shards
from tests.runtime import page_faults

NAMES = [f"{i:06d}.parquet" for i in range(5)]


def count_rows(tables: dict[str, pa.Table], payload: Any) -> tuple[pa.Table, dict[str, Any]]:
    table = tables["images"]
    return table.select(["image_id"]), {"num_rows": table.num_rows, "payload": payload}


def refuse_third(tables: dict[str, pa.Table], payload: Any) -> tuple[pa.Table, dict[str, Any]]:
    if tables["images"].column("image_id")[0].as_py().startswith("2-"):
        raise DataError("image 2-0 is bad: replace it")
    return count_rows(tables, payload)


def make_count() -> Callable[..., Any]:
    return count_rows


def count_frozen(tables: dict[str, pa.Table], payload: Any) -> tuple[pa.Table, dict[str, Any]]:
    return tables["images"], {
        "num_frozen": gc.get_freeze_count(),
        "num_seen": len(gc.get_objects()),
    }


def make_count_frozen() -> Callable[..., Any]:
    return count_frozen


def count_page_faults(tables: dict[str, pa.Table], payload: Any) -> tuple[pa.Table, dict[str, Any]]:
    return tables["images"], {"number": page_faults.of_large_arrays()}


def make_count_page_faults() -> Callable[..., Any]:
    return count_page_faults


def make_refuse() -> Callable[..., Any]:
    return refuse_third


@pytest.fixture
def images(tmp_path: Path) -> Path:
    directory = tmp_path / "images"
    for number, name in enumerate(NAMES):
        ids = [f"{number}-{row}" for row in range(number + 1)]
        storage.write_table(str(directory / name), pa.table({"image_id": ids, "x": ids}))
    return directory


def job(images: Path, output: Path, **changes: Any) -> ShardJob:
    settings: dict[str, Any] = {
        "label": "count",
        "names": NAMES,
        "inputs": {"images": ShardInput(directory=str(images), columns=("image_id",))},
        "output_dir": str(output),
        "fingerprint": "abc",
        "make_work": make_count,
        "payloads": {name: name[:6] for name in NAMES},
    }
    return ShardJob(**settings | changes)


def summaries_of_an_actor(
    images: Path, output: Path, make_work: Callable[[], Callable[..., Any]]
) -> list[dict[str, Any]]:
    """Maps all shards with one actor."""
    made = job(images, output, make_work=make_work, pool=lambda: Pool(num_actors=1, num_gpus=0))
    summaries = [summary for _, summary in run_shards(made)]
    assert len(summaries) == len(NAMES)
    return summaries


@pytest.mark.ray
@pytest.mark.parametrize("pool", [None, lambda: Pool(num_actors=2, num_gpus=0)])
def test_summaries_come_in_the_order_of_the_names(
    ray_cluster: None, images: Path, tmp_path: Path, pool: Callable[[], Pool] | None
) -> None:
    summaries = list(run_shards(job(images, tmp_path / "out", pool=pool)))
    assert [name for name, _ in summaries] == NAMES
    assert [s["num_rows"] for _, s in summaries] == [1, 2, 3, 4, 5]
    assert [s["payload"] for _, s in summaries] == [n[:6] for n in NAMES]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == NAMES


@pytest.mark.ray
def test_an_actor_hides_its_imports_and_networks_from_the_garbage_collector(
    ray_cluster: None, images: Path, tmp_path: Path
) -> None:
    for summary in summaries_of_an_actor(images, tmp_path / "out", make_count_frozen):
        assert summary["num_seen"] < summary["num_frozen"] / 4


@pytest.mark.ray
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc keeps freed memory")
def test_an_actor_on_a_cpu_makes_large_arrays_from_freed_memory(
    ray_cluster: None, images: Path, tmp_path: Path
) -> None:
    for summary in summaries_of_an_actor(images, tmp_path / "out", make_count_page_faults):
        assert summary["number"] < page_faults.FEWEST_OF_NEW_ARRAYS


@pytest.mark.ray
def test_an_error_names_its_cause_and_keeps_finished_shards(
    ray_cluster: None, images: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert sum_shards(job(images, out, names=NAMES[:2]), ["num_rows"]) == {"num_rows": 3}
    before = {p: p.stat().st_mtime_ns for p in out.iterdir()}
    with pytest.raises(DataError, match="image 2-0 is bad: replace it") as found:
        list(run_shards(job(images, out, make_work=make_refuse)))
    assert "in map_shard" in found.value.__notes__[0], "the traceback of the process"
    assert {p: p.stat().st_mtime_ns for p in before} == before
    assert not (out / NAMES[2]).exists()


def test_finished_shards_need_no_ray(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mapped = job(images, tmp_path / "out")
    for name in NAMES:
        ShardMapper(mapped).map_shard(name, None)
    monkeypatch.setattr("slams_ray.runtime.cluster.connect", lambda: pytest.fail("Ray started"))
    assert [s["num_rows"] for _, s in run_shards(mapped)] == [1, 2, 3, 4, 5]


def test_shards_of_another_fingerprint_or_damaged_ones_do_not_count(
    images: Path, tmp_path: Path
) -> None:
    ShardMapper(job(images, tmp_path / "out")).map_shard(NAMES[3], None)
    path = tmp_path / "out" / NAMES[3]
    note = read_note(str(path), "abc")
    assert note is not None
    assert note["summary"] == {"num_rows": 4, "payload": None}
    assert read_note(str(path), "other") is None
    whole = path.read_bytes()
    for size in (0, 10, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        assert read_note(str(path), "abc") is None


def test_shards_that_an_earlier_output_holds_as_they_would_be_made_now_are_taken_over(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {name: f"abc-{name}" for name in NAMES}
    earlier = job(images, tmp_path / "earlier", fingerprint="before", fingerprints=before)
    for name in NAMES:
        ShardMapper(earlier).map_shard(name, name, before[name])
    now = before | {NAMES[2]: "abc-changed"}
    output = tmp_path / "now"
    mapped = job(
        images,
        output,
        fingerprint="now",
        fingerprints=now,
        earlier=[str(tmp_path / "nothing"), str(tmp_path / "earlier")],
    )
    made: list[str] = []

    def make(job: ShardJob, waiting: list[str]) -> Iterator[tuple[str, Any]]:
        made.extend(waiting)
        mapper = ShardMapper(job)
        return ((name, mapper.map_shard(name, name, now[name])) for name in waiting)

    monkeypatch.setattr("slams_ray.runtime.shards._map_with_ray", make)
    assert [s["num_rows"] for _, s in run_shards(mapped)] == [1, 2, 3, 4, 5]
    assert made == [NAMES[2]]
    assert sorted(path.name for path in output.iterdir()) == NAMES
    assert sum(mapped.devices.values()) == len(NAMES)


def test_a_truncated_input_shard_is_named(images: Path, tmp_path: Path) -> None:
    shard = images / NAMES[1]
    shard.write_bytes(shard.read_bytes()[:-20])
    with pytest.raises(ArtifactError, match=str(shard)):
        ShardMapper(job(images, tmp_path / "out")).map_shard(NAMES[1], None)


def test_directories_that_do_not_belong_together_are_refused(images: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    storage.write_table(str(other / NAMES[1]), pa.table({"image_id": ["1-1", "1-0"]}))
    inputs = {
        "images": ShardInput(directory=str(images), columns=("image_id",)),
        "activations": ShardInput(directory=str(other), columns=("image_id",)),
    }
    with pytest.raises(ArtifactError, match="different images in images, activations"):
        ShardMapper(job(images, tmp_path / "out", inputs=inputs)).map_shard(NAMES[1], None)


def test_only_the_named_columns_are_read(images: Path, tmp_path: Path) -> None:
    seen: list[list[str]] = []

    def look(tables: dict[str, pa.Table], payload: Any) -> tuple[pa.Table, dict[str, Any]]:
        seen.append(tables["images"].column_names)
        return tables["images"], {}

    ShardMapper(job(images, tmp_path / "out", make_work=lambda: look)).map_shard(NAMES[0], None)
    assert seen == [["image_id"]]
    assert pq.read_table(tmp_path / "out" / NAMES[0]).num_rows == 1


@pytest.mark.ray
def test_what_is_there_and_what_is_made_comes_in_one_order(
    ray_cluster: None, images: Path, tmp_path: Path
) -> None:
    mapped = job(images, tmp_path / "out")
    for name in (NAMES[3], NAMES[1]):
        ShardMapper(mapped).map_shard(name, "earlier")
    found = list(run_shards(mapped))
    assert [name for name, _ in found] == NAMES
    payloads = [summary["payload"] for _, summary in found]
    assert payloads == ["000000", "earlier", "000002", "earlier", "000004"]


def test_numbers_and_nested_lists_of_them_are_added_up(images: Path, tmp_path: Path) -> None:
    mapped = job(images, tmp_path / "out", make_work=lambda: count_twice)
    for name in NAMES:
        ShardMapper(mapped).map_shard(name, None)
    totals = sum_shards(mapped, ("num_rows", "table"))
    assert totals["num_rows"] == 15
    assert totals["table"].tolist() == [[15, 30], [5, 0]]


def count_twice(tables: dict[str, pa.Table], payload: Any) -> tuple[pa.Table, dict[str, Any]]:
    num_rows = tables["images"].num_rows
    return tables["images"], {"num_rows": num_rows, "table": [[num_rows, 2 * num_rows], [1, 0]]}


def abort_on_third(tables: dict[str, pa.Table], payload: Any) -> tuple[pa.Table, dict[str, Any]]:
    if tables["images"].column("image_id")[0].as_py().startswith("2-"):
        os.abort()
    return count_rows(tables, payload)


def make_abort() -> Callable[..., Any]:
    return abort_on_third


@pytest.mark.ray
def test_a_shard_that_crashes_its_process_ends_after_a_few_attempts(
    ray_cluster: None, images: Path, tmp_path: Path
) -> None:
    with pytest.raises(ArtifactError, match=rf"shard {NAMES[2]} ended its process 4 times"):
        list(run_shards(job(images, tmp_path / "out", make_work=make_abort)))
    assert sum_shards(job(images, tmp_path / "out"), ["num_rows"]) == {"num_rows": 15}


def make_nothing() -> Callable[..., Any]:
    os.abort()


@pytest.mark.ray
def test_work_that_crashes_while_it_is_made_ends_after_a_few_attempts(
    ray_cluster: None, images: Path, tmp_path: Path
) -> None:
    with pytest.raises(ArtifactError, match=r"shard \d{6}\.parquet ended its process 4 times"):
        list(run_shards(job(images, tmp_path / "out", make_work=make_nothing)))


class AbortOnImages:
    """Work that dies of two images, and leaves out those it is told of."""

    trace: Callable[[str], None] | None = None
    crashed: frozenset[str] = frozenset()

    def __call__(
        self, tables: dict[str, pa.Table], payload: Any
    ) -> tuple[pa.Table, dict[str, Any]]:
        ids = tables["images"].column("image_id").to_pylist()
        for image_id in ids:
            if image_id in self.crashed:
                continue
            if self.trace is not None:
                self.trace(image_id)
            if image_id in ("3-1", "3-2"):
                os.abort()
        return tables["images"], {"left_out": sorted(self.crashed)}


@pytest.mark.ray
def test_images_that_crash_the_process_are_found_and_named_to_the_work(
    ray_cluster: None, images: Path, tmp_path: Path
) -> None:
    summaries = dict(run_shards(job(images, tmp_path / "out", make_work=AbortOnImages)))
    assert [summaries[name]["left_out"] for name in NAMES] == [[], [], [], ["3-1", "3-2"], []]


def test_a_shard_tells_from_when_to_when_it_was_worked_on(images: Path, tmp_path: Path) -> None:
    before = time.time()
    ShardMapper(job(images, tmp_path / "out")).map_shard(NAMES[1], None)
    began, ended = worked(str(tmp_path / "out" / NAMES[1]))
    assert before <= began <= ended <= time.time()
