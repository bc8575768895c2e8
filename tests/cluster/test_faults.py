"""Reduced fault injection: the same code as `python -m jobs.faults`, one stage."""

import json
from pathlib import Path

import pytest

from slams_ray.artifacts import read_record
from slams_ray.faults.injection import FaultInjection

pytestmark = [pytest.mark.ray, pytest.mark.long]

COMMANDS = {
    "output_truncated": 1,
    "driver_killed": 2,
    "stopped": 2,
    "image_corrupted": 2,
    "image_crashing": 2,
}
"""Fault -> how often the command has to be given."""


def test_a_killed_worker_and_a_lost_node_are_survived(tmp_path: Path) -> None:
    injection = FaultInjection(tmp_path)
    rows = injection.run(["prepare"], ["worker_killed", "node_killed"])
    assert [(row.stage, row.fault) for row in rows] == [
        ("prepare", "worker_killed"),
        ("prepare", "node_killed"),
    ]
    assert all(row.survived and row.identical for row in rows), rows
    assert [row.num_commands for row in rows] == [1, 1]
    shown = json.loads((tmp_path / "faults.json").read_text())
    assert {"stage", "fault", "survived", "seconds_lost", "redone", "identical"} <= shown[0].keys()
    (prepared,) = (tmp_path / "reference" / "prepare").iterdir()
    record = read_record(str(prepared))
    assert record is not None
    assert len(record.nodes) == 2, "both nodes have made shards"


def test_what_ends_or_damages_a_run_is_mended_by_the_same_command(tmp_path: Path) -> None:
    rows = FaultInjection(tmp_path).run(["prepare"], list(COMMANDS))
    assert all(row.survived and row.identical for row in rows), rows
    assert {row.fault: row.num_commands for row in rows} == COMMANDS


def test_a_later_stage_survives_refused_reads_a_crashing_image_and_a_lost_server(
    tmp_path: Path,
) -> None:
    faults = ["reads_refused", "image_crashing", "mlflow_gone"]
    rows = FaultInjection(tmp_path).run(["infer_activation"], faults)
    assert [row.fault for row in rows] == faults
    assert rows[0].num_commands == 1
    assert all(row.survived and row.identical for row in rows), rows
