"""Own work is the time in which some worker works, read from what the stages left."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from slams_ray import storage
from slams_ray.benchmarks.measurements import overhead

if TYPE_CHECKING:
    from tests.conftest import Finished


@pytest.mark.parametrize(
    ("found", "seconds"),
    [
        ([], 0.0),
        ([(1.0, 3.0)], 2.0),
        ([(1.0, 3.0), (2.0, 4.0)], 3.0),
        ([(5.0, 6.0), (1.0, 4.0), (2.0, 3.0)], 4.0),
    ],
)
def test_time_counts_once_however_many_work(
    found: list[tuple[float, float]], seconds: float
) -> None:
    assert overhead.union_seconds(found) == seconds


def test_a_start_is_measured_against_its_limit() -> None:
    rows = overhead.start_rows(1)
    assert [row.against for row in rows] == ["0.3 s", "2.0 s"]
    for row, limit in zip(rows, (0.3, 2.0), strict=True):
        least = float(row.what.rsplit(", ", 1)[1].split()[0])
        assert limit / row.ratio == pytest.approx(least, abs=0.01)


@pytest.mark.ray
def test_every_stage_tells_when_it_worked(finished: "Finished") -> None:
    for stage, result in finished.result.results.items():
        found = overhead.intervals(result)
        files = [n for n in storage.list_files(result.output_dir) if n.endswith(".parquet")]
        assert len(found) == max(len(files), 1), stage
        assert 0 < overhead.union_seconds(found) < result.record.seconds
        record = Path(result.path("record.json")).stat().st_mtime
        assert all(began < ended <= record for began, ended in found)
