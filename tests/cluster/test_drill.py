"""A reduced drill: the same code as `python -m jobs.drill`, two stages and two faults."""

import json
from pathlib import Path

import pytest

from slams_ray.artifacts import read_record
from slams_ray.drills.drill import Drill

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def test_killed_workers_and_a_poison_image_are_survived(tmp_path: Path) -> None:
    drill = Drill(tmp_path)
    rows = drill.run(["prepare", "train_encoder"], ["worker_killed", "image_poisoned"])
    assert [(row.stage, row.fault) for row in rows] == [
        ("prepare", "worker_killed"),
        ("prepare", "image_poisoned"),
        ("train_encoder", "worker_killed"),
    ]
    assert all(row.survived and row.identical for row in rows), rows
    assert [row.num_commands for row in rows] == [1, 2, 1]
    shown = json.loads((tmp_path / "drill.json").read_text())
    assert {"stage", "fault", "survived", "seconds_lost", "redone", "identical"} <= shown[0].keys()
    (prepared,) = (tmp_path / "reference" / "prepare").iterdir()
    record = read_record(str(prepared))
    assert record is not None
    assert len(record.nodes) == 2, "both nodes have made shards"
