"""MLflow runs: buffering, nesting, trouble that must not stop work, processes that die."""

import getpass
import json
import logging
import re
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from slams_ray.config import TrackingConfig
from slams_ray.errors import ConfigError, DataError
from slams_ray.runtime import retry_queue, tracking, tracking_database
from slams_ray.runtime.session import TrackingSession
from slams_ray.runtime.system_metrics import SystemMetrics
from slams_ray.runtime.tracking import Run, Tracker
from slams_ray.runtime.tracking_address import accepted_name, artifact_location, tracking_uri
from slams_ray.runtime.tracking_view import VIEW
from slams_ray.runtime.watchdog import Watchdog

pytestmark = pytest.mark.slow


def statuses(workspace: Path) -> dict[str, str]:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{workspace}/mlflow.db")
    return {r.data.tags["mlflow.runName"]: r.info.status for r in client.search_runs(["1"])}


def new_session(workspace: Path, key: str = "key") -> TrackingSession:
    return TrackingSession(str(workspace), "slams_ray", "parent", key, {"seed": 0})


def test_metrics_arrive_with_their_steps_after_a_flush(tmp_path: Path) -> None:
    run = Tracker(str(tmp_path), "e").start("run", {})
    for step in range(1200):
        run.log_metrics({"loss": step / 10, "undefined": float("nan")}, step)
    run.finish("FINISHED")
    history = run.client.get_metric_history(str(run.run_id), "loss")
    assert [(m.step, m.value) for m in history] == [(s, s / 10) for s in range(1200)]
    assert run.client.get_metric_history(str(run.run_id), "undefined") == []


def stored_names(run: Run) -> tuple[set[str], set[str], set[str]]:
    """Names of the metrics, parameters and own tags that MLflow has of a run."""
    data = run.client.get_run(str(run.run_id)).data
    tags = {name for name in data.tags if not name.startswith("mlflow.")}
    return set(data.metrics), set(data.params), tags


def test_a_class_name_that_mlflow_refuses_costs_no_score(tmp_path: Path) -> None:
    run = Tracker(str(tmp_path), "e").start("run", {})
    names = [
        "cat & dog",
        "cat + dog",
        "cat_dog",
        "car (red)",
        "a,b",
        "n//a",
        "a/../b",
        "c/",
        "x" * 300,
    ]
    run.log_metrics({f"iou/{name}": index for index, name in enumerate(names)})
    run.log_metrics({"segmentation_miou": 0.5})
    run.log_params({f"weight.{name}": 1 for name in names} | {"seed": 0})
    run.set_tags({f"best.{name}": "1" for name in names} | {"team": "vision"})
    assert run.finish("FINISHED")
    assert run.is_tracked
    metrics, params, tags = stored_names(run)
    assert {"segmentation_miou", "iou/cat_dog"} < metrics
    assert {"seed", "weight.cat_dog"} < params
    assert {"team", "best.cat_dog"} < tags
    assert len(metrics) == len(params) == len(tags) == len(names) + 1
    assert any(name.startswith("iou/cat _ dog-") for name in metrics)


@pytest.mark.parametrize(
    "name",
    ["segmentation_miou", "iou/traffic light", "crf.gt_prob", "dead/Käse", "a:b-c", ".b", "a..b"],
)
def test_a_name_that_mlflow_accepts_is_kept(name: str) -> None:
    from mlflow.utils.validation import _validate_metric_name

    _validate_metric_name(name)
    assert accepted_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/",
        ".",
        "..",
        "../a",
        "/a",
        "a/",
        "a//b",
        "a/./b",
        "a\nb",
        "a\n",
        "a|b",
        "é" * 251,
        "\ud800",
    ],
)
def test_any_name_becomes_one_that_mlflow_accepts(name: str) -> None:
    from mlflow.utils.validation import MAX_ENTITY_KEY_LENGTH, _validate_metric_name

    found = accepted_name(name)
    _validate_metric_name(found)
    assert len(found) <= MAX_ENTITY_KEY_LENGTH
    assert found == accepted_name(name) != accepted_name(name + "&")


def test_the_experiment_is_one_of_trainings_and_runs_say_who_started_what(tmp_path: Path) -> None:
    tracker = Tracker(str(tmp_path), "e")
    assert tracker.experiment_id is not None
    run = tracker.start("run", {})
    client = run.client
    kind = "mlflow.experimentKind"
    assert client.get_experiment(tracker.experiment_id).tags[kind] == "custom_model_development"
    tags = client.get_experiment(tracker.experiment_id).tags
    view = json.loads(tags[f"mlflow.sharedViewState.{VIEW}"])
    assert {"metrics.`segmentation_miou`", "params.`seed`"} <= set(view["selectedColumns"])
    assert f"viewStateShareKey={VIEW} " in (Path(__file__).parents[2] / "Makefile").read_text()
    for run_id in (run.run_id, run.child("nested").run_id):
        tags = client.get_run(str(run_id)).data.tags
        assert tags["mlflow.user"] == getpass.getuser()
        assert tags["mlflow.source.name"] == sys.argv[0]
    other = client.create_experiment("older")
    Tracker(str(tmp_path), "older")
    assert client.get_experiment(other).tags[kind] == "custom_model_development"
    client.set_experiment_tag(other, kind, "chosen by the user")
    Tracker(str(tmp_path), "older")
    assert client.get_experiment(other).tags[kind] == "chosen by the user"


def test_the_users_tags_are_on_the_parent_run(tmp_path: Path) -> None:
    config = TrackingConfig(tags=("team=vision", "note=a=b"))
    with TrackingSession(str(tmp_path), "e", "p", "k", {}, tags=config.named_tags) as session:
        parent = session.open()
    tags = parent.client.get_run(str(parent.run_id)).data.tags
    assert (tags["team"], tags["note"]) == ("vision", "a=b")


@pytest.mark.parametrize("tag", ["team", "=vision", "mlflow.user=me", "slams.commit=none"])
def test_a_tag_without_a_name_of_its_own_is_refused(tag: str) -> None:
    with pytest.raises(ConfigError, match=r"tracking\.tags"):
        TrackingConfig(tags=(tag,))


def test_system_metrics_reach_the_run_until_they_are_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.2")
    run = Tracker(str(tmp_path), "e").start("run", {})
    metrics = SystemMetrics(run.uri, run.run_id)
    name, deadline = "system/cpu_utilization_percentage", time.monotonic() + 60
    while not run.client.get_metric_history(str(run.run_id), name):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    metrics.stop()
    count = len(run.client.get_metric_history(str(run.run_id), name))
    time.sleep(0.6)
    assert len(run.client.get_metric_history(str(run.run_id), name)) == count
    SystemMetrics("http://127.0.0.1:9", None).stop()


def test_an_address_without_a_server_is_an_error_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.raises(ConfigError, match=r"http://127.0.0.1:9.*start the server"):
        Tracker(str(tmp_path), "e")


def test_a_server_that_stays_away_stops_nothing(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry_queue, "PATIENCE_SECONDS", 0.0)
    run = Run("http://127.0.0.1:9", "0" * 32)
    with caplog.at_level(logging.WARNING, logger="slams_ray"):
        run.log_params({"a": 1})
        run.log_metrics({"loss": 1.0})
        run.flush()
        run.finish("FINISHED")
    said = [r.message for r in caplog.records if r.name.startswith("slams_ray")]
    assert len(said) == 2
    assert "does not answer" in said[0]
    assert "3 requests stay queued" in said[1]
    assert not run.is_tracked


def test_trouble_with_the_workspace_does_not_pass_for_a_lost_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run = Tracker(str(tmp_path), "e").start("run", {})

    def fail(path: str) -> bytes:
        raise ConnectionError("the object store is gone")

    monkeypatch.setattr("slams_ray.storage.read_bytes", fail)
    with caplog.at_level(logging.WARNING, logger="slams_ray"):
        run.log_file(str(tmp_path / "summary.json"))
        run.log_metrics({"loss": 1.0})
        assert run.finish("FINISHED")
    assert "summary.json cannot be read" in caplog.text
    assert run.client.get_run(str(run.run_id)).data.metrics == {"loss": 1.0}


def test_work_that_others_began_goes_on_untracked_where_the_server_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry_queue, "PATIENCE_SECONDS", 0.0)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    session = TrackingSession(str(tmp_path), "e", "seed 1", "key", {"seed": 1}, "0" * 32)
    with session, session.stage_run("prepare") as run:
        run.log_metrics({"loss": 1.0})
        assert not run.is_tracked


@pytest.mark.slow
def test_a_pipeline_ends_well_after_its_watchdog_died(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tracker = Tracker(str(tmp_path), "e")
    watchdog = Watchdog(tracker.uri)
    for process in psutil.process_iter(["cmdline"]):
        if tracker.uri in (process.info["cmdline"] or []):
            process.kill()
            process.wait(10)
    watchdog.guard(tracker.start("run", {}))
    watchdog.release()
    assert "the watchdog of MLflow runs has died" in caplog.text


def test_how_a_run_ended_is_told_by_who_is_left_behind(tmp_path: Path) -> None:
    tracker = Tracker(str(tmp_path), "slams_ray")
    runs = {name: tracker.start(name, {}) for name in ("kept", "ended", "killed", "told")}
    watchdog = Watchdog(tracker.uri)
    for run in runs.values():
        watchdog.guard(run)
    watchdog.forget(runs["kept"])
    watchdog.hand_over(runs["ended"], "FINISHED")
    runs["told"].finish("FAILED")
    watchdog.hand_over(runs["told"], "FINISHED")
    watchdog.release()
    expected = {"kept": "RUNNING", "ended": "FINISHED", "killed": "KILLED", "told": "FAILED"}
    deadline = time.monotonic() + 120
    while statuses(tmp_path) != expected and time.monotonic() < deadline:
        time.sleep(1)
    assert statuses(tmp_path) == expected


def test_a_workspace_on_object_storage_needs_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(ConfigError, match="MLFLOW_TRACKING_URI"):
        tracking_uri("s3://bucket/runs")


def test_artifacts_of_a_database_of_ones_own_stand_in_the_workspace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/elsewhere.db")
    for workspace, location in (
        ("s3://bucket/runs", "s3://bucket/runs/mlartifacts"),
        (str(tmp_path), f"file://{tmp_path}/mlartifacts"),
    ):
        tracker = Tracker(workspace, workspace)
        run = tracker.start("run", {})
        experiment = run.client.get_experiment(tracker.experiment_id)
        assert experiment.artifact_location == location


def test_a_workspace_that_was_moved_does_not_write_into_its_old_place(tmp_path: Path) -> None:
    Tracker(str(tmp_path / "old"), "e").start("run", {})
    (tmp_path / "old").rename(tmp_path / "new")
    run = Tracker(str(tmp_path / "new"), "e").start("run", {})
    run.log_dict({"a": 1}, "a.json")
    assert run.settle()
    assert [path.name for path in tmp_path.iterdir()] == ["new"]
    assert [path.name for path in tmp_path.rglob("a.json")] == ["a.json"]
    again = Tracker(str(tmp_path / "new"), "e")
    experiment = run.client.get_experiment(again.experiment_id)
    assert experiment.name == "e 2"


def test_runs_are_tracked_although_their_experiment_was_deleted(tmp_path: Path) -> None:
    first = Tracker(str(tmp_path), "e")
    run = first.start("run", {})
    run.client.delete_experiment(first.experiment_id)
    second = Tracker(str(tmp_path), "e").start("run", {})
    assert second.run_id is not None
    assert run.client.get_run(second.run_id).info.lifecycle_stage == "active"


@pytest.mark.parametrize("uri", ["localhost:5000", "nosuch+driver://host/db"])
def test_an_address_that_mlflow_does_not_take_is_named(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(ConfigError, match=rf"MLFLOW_TRACKING_URI is {re.escape(uri)}, but no"):
        Tracker(str(tmp_path), "e")


@pytest.mark.parametrize("name", ["a#b", "a?b", "100%41", "100%", "my runs", "é=1"])
def test_a_workspace_with_any_name_contains_its_database_and_artifacts(
    name: str, tmp_path: Path
) -> None:
    from mlflow import MlflowClient

    workspace = tmp_path / name / "runs"
    workspace.mkdir(parents=True)
    client = MlflowClient(tracking_uri=tracking_uri(str(workspace)))
    experiment = client.create_experiment("e", artifact_location(str(workspace)))
    run = client.create_run(experiment)
    client.log_text(run.info.run_id, "hello", "hello.txt")
    assert {path.name for path in workspace.iterdir()} == {"mlflow.db", "mlartifacts"}
    assert [path.read_text() for path in workspace.rglob("hello.txt")] == ["hello"]
    assert list(tmp_path.iterdir()) == [tmp_path / name]
    assert list((tmp_path / name).iterdir()) == [workspace]
    downloaded = client.download_artifacts(run.info.run_id, "hello.txt", str(tmp_path))
    assert Path(downloaded).read_text() == "hello"


@pytest.mark.parametrize("name", ["a#b", "a?b", "100%41", "my runs"])
def test_a_tracker_keeps_to_a_workspace_with_a_special_name(name: str, tmp_path: Path) -> None:
    workspace = tmp_path / name
    run = Tracker(str(workspace), "e").start("run", {})
    run.log_text("hello", "hello.txt")
    assert run.finish("FINISHED")
    assert list(tmp_path.iterdir()) == [workspace]
    assert [path.read_text() for path in workspace.rglob("hello.txt")] == ["hello"]


def test_an_address_of_an_ordinary_workspace_stays_readable() -> None:
    assert tracking_uri("/data/my runs#1") == "sqlite:////data/my runs#1/mlflow.db"


def test_no_run_is_opened_before_there_is_work(tmp_path: Path) -> None:
    with new_session(tmp_path):
        pass
    assert not (tmp_path / "mlflow.db").exists()


def test_a_failed_stage_and_its_parent_say_why(tmp_path: Path) -> None:
    with pytest.raises(DataError), new_session(tmp_path) as session, session.stage_run("prepare"):
        raise DataError("image 7 is truncated")
    assert statuses(tmp_path) == {"parent": "FAILED", "prepare": "FAILED"}
    assert session.parent is not None
    run = session.parent.client.get_run(str(session.parent.run_id))
    assert run.data.tags["slams.error"] == "image 7 is truncated"


def test_an_interrupt_ends_runs_as_killed(tmp_path: Path) -> None:
    with (
        pytest.raises(KeyboardInterrupt),
        new_session(tmp_path) as session,
        session.stage_run("refine"),
    ):
        raise KeyboardInterrupt
    assert statuses(tmp_path) == {"parent": "KILLED", "refine": "KILLED"}


def test_the_same_pipeline_continues_its_parent_run_and_another_gets_its_own(
    tmp_path: Path,
) -> None:
    ids = []
    for key in ("one", "one", "two"):
        with new_session(tmp_path, key) as session:
            ids.append(session.open().run_id)
    assert ids[0] == ids[1] != ids[2]


@pytest.mark.slow
def test_sigkill_does_not_leave_runs_running(tmp_path: Path) -> None:
    """Of the process and its descendants, as `ray job stop` does where a driver takes long."""
    program = (
        "import sys, time\n"
        "from slams_ray.runtime.session import TrackingSession\n"
        "session = TrackingSession(sys.argv[1], 'slams_ray', 'parent', 'key', {})\n"
        "with session.stage_run('train_encoder'):\n"
        "    print('working', flush=True)\n"
        "    time.sleep(600)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "working\n"
    assert set(statuses(tmp_path).values()) == {"RUNNING"}
    for descendant in psutil.Process(process.pid).children(recursive=True):
        descendant.kill()
    process.kill()
    process.wait()
    process.stdout.close()
    deadline = time.monotonic() + 300
    while "RUNNING" in statuses(tmp_path).values() and time.monotonic() < deadline:
        time.sleep(2)
    assert set(statuses(tmp_path).values()) == {"KILLED"}


def test_a_first_start_does_not_replace_the_database_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other is ready after this one has looked, and has its database open."""
    genuine, others = tracking_database.new_client, []

    def meanwhile(uri: str) -> object:
        monkeypatch.setattr(tracking_database, "new_client", genuine)
        tracker = Tracker(str(tmp_path), "e")
        others.append(tracker.start("run", {}))
        return genuine(uri)

    monkeypatch.setattr(tracking_database, "new_client", meanwhile)
    tracking_database.create_database(str(tmp_path))
    (run,) = others
    found = genuine(tracking_uri(str(tmp_path))).get_run(run.run_id)
    assert found.info.run_name == "run"


def test_metrics_wait_for_others_no_longer_than_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Tracker(str(tmp_path), "e").start("run", {})
    now = time.monotonic()
    monkeypatch.setattr("slams_ray.runtime.tracking.time.monotonic", lambda: now)

    def stored() -> list[float]:
        return [m.value for m in run.client.get_metric_history(str(run.run_id), "loss")]

    run.log_metrics({"loss": 1.0}, 1)
    now += tracking.FLUSH_SECONDS / 2
    run.log_metrics({"loss": 2.0}, 2)
    assert stored() == []
    now += tracking.FLUSH_SECONDS / 2
    run.flush_if_due()
    assert stored() == [1.0, 2.0]
    run.log_metrics({"loss": 3.0}, 3)
    run.flush_if_due()
    assert stored() == [1.0, 2.0]


def test_a_point_has_the_time_at_which_it_was_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Tracker(str(tmp_path), "e").start("run", {})
    run.log_metrics({"loss": 1.0})
    later = time.time() + 3600
    monkeypatch.setattr("slams_ray.runtime.tracking.time.time", lambda: later)
    run.flush()
    (point,) = run.client.get_metric_history(str(run.run_id), "loss")
    assert point.timestamp < 1000 * (later - 3000)


def test_a_long_parameter_is_stored_whole(tmp_path: Path) -> None:
    run = Tracker(str(tmp_path), "e").start("run", {})
    run.log_params({"names": "a" * 5999, "longer": "b" * 9000})
    run.finish("FINISHED")
    params = run.client.get_run(str(run.run_id)).data.params
    assert (len(params["names"]), len(params["longer"])) == (5999, 6000)
