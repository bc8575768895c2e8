"""A pipeline that is killed again and again ends as an undisturbed one."""

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.ray, pytest.mark.long]

ROOT = Path(__file__).parents[2]
NUM_KILLS = 12
LONGEST_SECONDS = 40.0


def start(workspace: Path, log: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "jobs.pipeline", "smoke", "--workspace", str(workspace)]
    with log.open("ab") as output:
        return subprocess.Popen(
            command, cwd=ROOT, env=os.environ, stdout=output, stderr=subprocess.STDOUT
        )


def scores(workspace: Path) -> dict[str, Any]:
    """Metrics of every stage."""
    summary = json.loads((workspace / "summary.json").read_text())
    return {stage["stage"]: stage["metrics"] for stage in summary["stages"]}


def test_twelve_kills_at_random_instants_change_no_metric_and_leave_no_run_running(
    tmp_path: Path,
) -> None:
    from mlflow import MlflowClient

    log = tmp_path / "log"
    assert start(tmp_path / "undisturbed", log).wait() == 0, log.read_text()
    draw = random.Random(0)
    killed = 0
    for _ in range(NUM_KILLS):
        driver = start(tmp_path / "killed", log)
        try:
            driver.wait(draw.uniform(2.0, LONGEST_SECONDS))
        except subprocess.TimeoutExpired:
            driver.send_signal(signal.SIGKILL)
            driver.wait()
            killed += 1
    assert killed >= NUM_KILLS // 2, "the pipeline ended too soon to be killed"
    assert start(tmp_path / "killed", log).wait() == 0, log.read_text()
    assert scores(tmp_path / "killed") == scores(tmp_path / "undisturbed")
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path}/killed/mlflow.db")
    states = [run.info.status for run in client.search_runs(["1"])]
    assert "RUNNING" not in states
    assert "FINISHED" in states
