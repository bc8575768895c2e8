"""The driver shows a training's points and sends each to MLflow once."""

import json
import logging
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from slams_ray.faults.outputs import look
from slams_ray.runtime.progress import Progress
from slams_ray.runtime.trainer import fit
from slams_ray.runtime.training_log import (
    POSTED_POINTS,
    TrainingFollower,
    TrainingLog,
    progress_path,
)
from tests.runtime.test_trainer import Line, training_job

KEY = "line/loss"


@pytest.fixture
def mlflow_run(tmp_path: Path) -> tuple[MlflowClient, str, str]:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    client = MlflowClient(uri)
    experiment = client.create_experiment("e", f"file://{tmp_path}/artifacts")
    return client, uri, client.create_run(experiment).info.run_id


def steps_and_values(client: MlflowClient, run_id: str) -> list[tuple[int, float]]:
    return [(m.step, m.value) for m in client.get_metric_history(run_id, KEY)]


def test_each_point_is_sent_once_with_its_own_time_also_where_steps_are_repeated(
    tmp_path: Path, mlflow_run: tuple[MlflowClient, str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("slams_ray.runtime.training_log.SECONDS_BETWEEN_LOOKS", 0.02)
    client, uri, run_id = mlflow_run
    job = training_job(tmp_path, Line(), tracking_uri=uri, run_id=run_id)
    history = [{"step": s, "time": 1000.0 + s, "loss": s / 4} for s in range(1, 5)]
    with TrainingFollower(job) as follower:
        write_post(tmp_path, history[:3])
        time.sleep(0.2)
        # The worker was lost after step 3 and continues after step 1.
        write_post(tmp_path, [history[0], history[1] | {"time": 2000.0}])
        time.sleep(0.2)
        assert follower.finish(history)
    assert steps_and_values(client, run_id) == [(s, s / 4) for s in range(1, 5)]
    stamps = [m.timestamp for m in client.get_metric_history(run_id, KEY)]
    assert stamps == [1001000, 1002000, 1003000, 1004000]


def write_post(output: Path, points: list[dict[str, float]]) -> None:
    content = json.dumps({"first_step": 0, "rate": 1.5, "points": points})
    Path(progress_path(str(output))).write_text(content)


def test_points_reach_mlflow_while_the_training_runs_and_also_when_it_fails(
    tmp_path: Path, mlflow_run: tuple[MlflowClient, str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("slams_ray.runtime.training_log.SECONDS_BETWEEN_LOOKS", 0.02)
    monkeypatch.setattr("slams_ray.runtime.tracking.FLUSH_SECONDS", 0.1)
    client, uri, run_id = mlflow_run
    job = training_job(tmp_path, Line(), tracking_uri=uri, run_id=run_id)

    def train() -> None:
        with TrainingFollower(job):
            write_post(tmp_path, [{"step": 1, "time": 1.0, "loss": 0.5}])
            deadline = time.monotonic() + 60
            while not steps_and_values(client, run_id) and time.monotonic() < deadline:
                time.sleep(0.1)
            assert steps_and_values(client, run_id) == [(1, 0.5)]
            monkeypatch.setattr("slams_ray.runtime.tracking.FLUSH_SECONDS", 1000.0)
            write_post(tmp_path, [{"step": s, "time": 1.0, "loss": 0.5} for s in (1, 2)])
            time.sleep(0.5)
            raise ValueError("gone")

    with pytest.raises(ValueError, match="gone"):
        train()
    assert steps_and_values(client, run_id) == [(1, 0.5), (2, 0.5)]


def test_a_torn_post_is_passed_over_and_the_next_one_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("slams_ray.runtime.training_log.SECONDS_BETWEEN_LOOKS", 0.02)
    shown: list[tuple[Any, ...]] = []
    monkeypatch.setattr(Progress, "advance", lambda self, *state: shown.append(state))
    path = Path(progress_path(str(tmp_path)))
    with TrainingFollower(training_job(tmp_path, Line())):
        path.write_text('{"first_step": 0, "rate": 1.5, "points": [{"step": 3')
        time.sleep(0.5)
        assert shown == []
        write_post(tmp_path, [{"step": 6, "time": 1.0, "loss": 0.25}])
        deadline = time.monotonic() + 60
        while not shown and time.monotonic() < deadline:
            time.sleep(0.05)
    assert shown == [(6, 1.5, "loss 0.2500")]


def test_a_continued_training_says_so_and_what_an_earlier_driver_left_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("slams_ray.runtime.training_log.SECONDS_BETWEEN_LOOKS", 0.02)
    monkeypatch.setattr(logging.getLogger("slams_ray"), "propagate", True)
    caplog.set_level(logging.INFO, "slams_ray")
    job = training_job(tmp_path, Line())
    TrainingLog(job, 0, 2, [])
    with TrainingFollower(job):
        time.sleep(0.2)
        assert "continues" not in caplog.text
        log = TrainingLog(job, 0, 4, [])
        time.sleep(0.5)
        log.add(5, {"loss": 1.0}, 0.1)
        time.sleep(0.2)
    # A record may be captured by two handlers.
    told = {id(r) for r in caplog.records if r.getMessage() == "line continues after step 4"}
    assert len(told) == 1


def test_a_post_is_bounded_and_the_history_complete(tmp_path: Path) -> None:
    history: list[dict[str, float]] = []
    log = TrainingLog(training_job(tmp_path, Line()), 0, 0, history)
    for step in range(1, POSTED_POINTS + 6):
        log.add(step, {"loss": 1.0}, 0.1)
    posted = json.loads(Path(progress_path(str(tmp_path))).read_text())["points"]
    assert [point["step"] for point in posted] == list(range(6, POSTED_POINTS + 6))
    assert len(history) == POSTED_POINTS + 5


def test_fault_injection_sees_the_step_of_a_training(tmp_path: Path) -> None:
    log = TrainingLog(training_job(tmp_path, Line()), 0, 0, [])
    assert not look(tmp_path).is_working
    log.add(3, {"loss": 1.0}, 0.1)
    assert look(tmp_path).step == 3
    TrainingLog(training_job(tmp_path, Line()), 0, 2, [])
    assert look(tmp_path).step == 2


def test_a_training_whose_driver_died_before_its_record_is_tracked_by_the_next_one(
    tmp_path: Path, mlflow_run: tuple[MlflowClient, str, str]
) -> None:
    client, uri, run_id = mlflow_run
    points = [{"step": s, "time": 1.0, "loss": 0.5} for s in (1, 2)]
    (tmp_path / "training.json").write_text(json.dumps({"history": points}))
    fit(training_job(tmp_path, Line(), tracking_uri=uri, run_id=run_id))
    assert steps_and_values(client, run_id) == [(1, 0.5), (2, 0.5)]


def test_a_server_that_is_down_costs_a_warning_and_no_point_of_the_workspace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("slams_ray.runtime.retry_queue.PATIENCE_SECONDS", 0.0)
    monkeypatch.setattr(logging.getLogger("slams_ray"), "propagate", True)
    points = [{"step": 1, "time": 1.0, "loss": 0.5}]
    (tmp_path / "training.json").write_text(json.dumps({"history": points}))
    job = training_job(tmp_path, Line(), tracking_uri="http://127.0.0.1:1", run_id="a")
    assert fit(job)["history"] == points
    assert "line: MLflow lacks some steps, all of them are in" in caplog.text


def test_what_a_training_worker_imports_has_no_mlflow() -> None:
    code = "import slams_ray.runtime.trainer, sys; print('mlflow' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "False"


def test_the_controller_imports_no_torch_for_a_job_and_its_process_group() -> None:
    code = (
        "import sys, slams_ray.runtime.pickled_job, slams_ray.runtime.rendezvous; "
        "print('torch' in sys.modules)"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "False"
