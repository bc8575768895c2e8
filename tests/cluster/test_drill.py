"""A reduced drill: the same code as `python -m jobs.drill`, one stage and three faults."""

import json
from pathlib import Path

import pytest

from slams_ray.artifacts import read_record
from slams_ray.drills.drill import Drill

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def test_a_killed_worker_a_lost_node_and_a_poison_image_are_survived(tmp_path: Path) -> None:
    drill = Drill(tmp_path)
    rows = drill.run(["prepare"], ["worker_killed", "node_killed", "image_poisoned"])
    assert [(row.stage, row.fault) for row in rows] == [
        ("prepare", "worker_killed"),
        ("prepare", "node_killed"),
        ("prepare", "image_poisoned"),
    ]
    assert all(row.survived and row.identical for row in rows), rows
    assert [row.num_commands for row in rows] == [1, 1, 2]
    shown = json.loads((tmp_path / "drill.json").read_text())
    assert {"stage", "fault", "survived", "seconds_lost", "redone", "identical"} <= shown[0].keys()
    (prepared,) = (tmp_path / "reference" / "prepare").iterdir()
    record = read_record(str(prepared))
    assert record is not None
    assert len(record.nodes) == 2, "both nodes have made shards"
