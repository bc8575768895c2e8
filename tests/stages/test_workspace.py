"""A workspace is measured, and pruned of what its last finished run does not use."""

import json
import os
from pathlib import Path

import pytest

from slams_ray import storage
from slams_ray.artifacts import Record, write_record
from slams_ray.errors import ArtifactError
from slams_ray.stages import workspace
from slams_ray.storage import join, list_files, write_bytes


def write_output(root: str, stage: str, fingerprint: str, finished: bool = True) -> str:
    output = join(root, stage, fingerprint)
    write_bytes(join(output, "shards", "0.parquet"), bytes(1000))
    if finished:
        record = Record(
            stage=stage, fingerprint=fingerprint, config={}, inputs={}, seconds=0, num_rows=0
        )
        write_record(output, record)
    return output


def write_workspace(root: str) -> dict[str, str]:
    """Used, unused, unfinished and foreign directories, and the summary after them."""
    outputs = {
        "used": write_output(root, "refine", "a" * 12),
        "used by cam_refine": write_output(root, "refine", "9" * 12),
        "used with other scales": write_output(root, "refine", "8" * 12),
        "unused": write_output(root, "refine", "b" * 12),
        "unfinished": write_output(root, "refine", "c" * 12, finished=False),
        "of another stage": write_output(root, "walk", "d" * 12),
        "foreign": write_output(root, "synthetic", "e" * 12, finished=False),
        "artifacts": write_output(root, "mlartifacts", "f" * 32, finished=False),
    }
    stages = [
        {"stage": "cam_refine", "output": f"/moved/refine/{'9' * 12}"},
        {"stage": "refine", "output": f"/moved/refine/{'a' * 12}"},
    ]
    summary = {"stages": stages, "outputs": [f"refine/{digit * 12}" for digit in "89a"]}
    write_bytes(join(root, "summary.json"), json.dumps(summary).encode())
    return outputs


PRUNED = {"unused", "unfinished", "of another stage"}


def check_prune(root: str, outputs: dict[str, str]) -> None:
    before = list_files(root)
    expected = {outputs[name] for name in PRUNED}
    assert {o.path for o in workspace.prune(root, dry_run=True)} == expected
    assert list_files(root) == before
    assert {o.path for o in workspace.prune(root, dry_run=False)} == expected
    for name, path in outputs.items():
        assert (not list_files(path)) == (name in PRUNED), name
    assert storage.exists(join(root, "summary.json"))
    assert workspace.prune(root, dry_run=False) == []


def test_only_what_no_run_uses_is_removed(tmp_path: Path) -> None:
    root = str(tmp_path)
    outputs = write_workspace(root)
    past = (tmp_path / "summary.json").stat().st_mtime - 100
    for file in (f for f in tmp_path.rglob("*") if f.is_file() and f.name != "summary.json"):
        os.utime(file, (past, past))
    check_prune(root, outputs)


def test_a_workspace_in_a_bucket_is_pruned_too(object_store: str) -> None:
    root = f"{object_store}/prune"
    check_prune(root, write_workspace(root))


def test_a_workspace_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="gone is empty or missing"):
        list(workspace.show(str(tmp_path / "gone")))


def test_the_outputs_of_a_run_that_goes_on_are_kept(tmp_path: Path) -> None:
    write_workspace(str(tmp_path))
    newer = write_output(str(tmp_path), "refine", "0" * 12, finished=False)
    later = (tmp_path / "summary.json").stat().st_mtime + 100
    os.utime(f"{newer}/shards/0.parquet", (later, later))
    assert newer not in {o.path for o in workspace.prune(str(tmp_path), dry_run=True)}
    (line,) = (line for line in workspace.show(str(tmp_path)) if line.endswith(newer))
    assert "newer, not finished" in line


def test_usage_adds_up_to_all_bytes(tmp_path: Path) -> None:
    for name, num_bytes in (("a/b/c", 2_000_000), ("a/d", 500_000), ("e", 7_000_000)):
        write_bytes(str(tmp_path / name), bytes(num_bytes))
    lines = [line.split() for line in workspace.usage(str(tmp_path))]
    assert lines == [["7.0", "MB", "e"], ["2.5", "MB", "a"], ["9.5", "MB", str(tmp_path)]]


def test_without_a_finished_run_nothing_is_removed(tmp_path: Path) -> None:
    output = write_output(str(tmp_path), "refine", "a" * 12)
    with pytest.raises(ArtifactError, match=r"has no summary\.json"):
        workspace.prune(str(tmp_path), dry_run=False)
    assert list_files(output)


def test_the_outputs_of_a_run_that_never_finished_are_listed(tmp_path: Path) -> None:
    finished = write_output(str(tmp_path), "refine", "a" * 12)
    broken = write_output(str(tmp_path), "walk", "b" * 12, finished=False)
    first, *lines = workspace.show(str(tmp_path))
    assert "no run has finished here" in first
    assert [line.split()[-1] for line in lines] == [finished, broken]
    assert "newer, not finished" in lines[1]
