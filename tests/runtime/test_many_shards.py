"""What the driver needs for shards does not grow with their number."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from slams_ray import storage
from slams_ray.runtime.shards import ShardJob, ShardMapper, run_shards

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
FEW, MANY = 300, 1200
NUM_ALL_CLASSES = 81

DRIVER = """
import resource, sys
from slams_ray.runtime.shards import ShardJob, sum_shards

names = [f"{number:06d}.parquet" for number in range(int(sys.argv[2]))]
job = ShardJob(label="count", names=names, inputs={}, output_dir=sys.argv[1], fingerprint="abc",
               make_work=lambda: None)
totals = sum_shards(job, ("num_rows", "confusion"))
print(totals["num_rows"], totals["confusion"].sum())
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def confuse(tables: dict[str, pa.Table], payload: Any) -> tuple[pa.Table, dict[str, Any]]:
    """A summary as large as that of a data set of 80 classes."""
    rows = [[1000 + i + j for j in range(NUM_ALL_CLASSES + 1)] for i in range(NUM_ALL_CLASSES)]
    return pa.table({"image_id": ["a"]}), {"num_rows": 1, "confusion": rows}


def job(output: Path, num_shards: int) -> ShardJob:
    return ShardJob(
        label="count",
        names=[f"{number:06d}.parquet" for number in range(num_shards)],
        inputs={},
        output_dir=str(output),
        fingerprint="abc",
        make_work=lambda: confuse,
    )


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory of finished shards."""
    directory = tmp_path_factory.mktemp("shards") / "out"
    mapper = ShardMapper(job(directory, MANY))
    for name in mapper.job.names:
        mapper.map_shard(name, None)
    return directory


def test_the_driver_needs_no_more_memory_for_more_shards(output: Path) -> None:
    """Summaries of 900 more shards, kept, would take 200 MB as lists of Python numbers."""
    peak_kb = {}
    for num_shards in (FEW, MANY):
        run = subprocess.run(
            [sys.executable, "-c", DRIVER, str(output), str(num_shards)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        sums, peak = run.stdout.splitlines()
        one = sum(1000 + i + j for i in range(NUM_ALL_CLASSES) for j in range(NUM_ALL_CLASSES + 1))
        assert sums == f"{num_shards} {one * num_shards}"
        peak_kb[num_shards] = int(peak)
    assert peak_kb[MANY] - peak_kb[FEW] < 40_000


def test_the_driver_asks_of_a_shard_that_is_there_twice_and_of_others_never(
    output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    read = storage.table_metadata

    def count(path: str) -> dict[str, str] | None:
        asked.append(path)
        return read(path)

    monkeypatch.setattr(storage, "table_metadata", count)
    for num_shards in (10, 100):
        asked.clear()
        assert len(list(run_shards(job(output, num_shards)))) == num_shards
        assert len(asked) == 2 * num_shards
    asked.clear()
    waiting = run_shards(job(tmp_path / "empty", 5))
    monkeypatch.setattr("slams_ray.runtime.shards._map_with_ray", lambda *_: iter(()))
    with pytest.raises(RuntimeError):
        next(waiting)
    assert asked == []
