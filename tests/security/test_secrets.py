"""Passwords stay in the environment: not in messages, records, MLflow, or process lists."""

import logging
import os
import pickle
import traceback
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from slams_ray import storage
from slams_ray.config import BackboneConfig, ComputeConfig, DataConfig
from slams_ray.errors import ConfigError, DataError
from slams_ray.redaction import redacted
from slams_ray.runtime.pickled_job import PickledJob
from slams_ray.runtime.session import TrackingSession
from slams_ray.runtime.tracking import Run, Tracker
from slams_ray.runtime.tracking_address import credentials, tracking_uri
from slams_ray.runtime.training_job import TrainingJob
from slams_ray.runtime.watchdog import Watchdog
from slams_ray.stages.stage import Outcome, StageContext, run_stage

PLANTED = "hunter2-planted"
NOBODY = "127.0.0.1:9"
VARIABLES = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_URI")


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a user has set, and what is undone of what the code sets."""
    for name in VARIABLES:
        monkeypatch.setenv(name, "unset")
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", PLANTED)


def everything_said(error: BaseException) -> str:
    """The traceback with every cause, as a crash shows it."""
    return "".join(traceback.format_exception(error))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("no address", "no address"),
        (
            "to http://u:a@h:5000/x and s3://k:b@c/d.",
            "to http://u:***@h:5000/x and s3://k:***@c/d.",
        ),
        ("http://u:a@b@h/x", "http://u:***@h/x"),
        ("http://:a@h", "http://:***@h"),
        ("abfs://container@account/x", "abfs://container@account/x"),
        ("http://h:5000/a@b", "http://h:5000/a@b"),
        ("s3://AKIA:ab/cd+e/f@bucket/x", "s3://AKIA:***@bucket/x"),
    ],
)
def test_passwords_of_addresses_are_struck_out(text: str, expected: str) -> None:
    assert redacted(text) == expected


def test_a_servers_password_moves_from_its_address_to_mlflows_variables(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://slams:{PLANTED}%40@{NOBODY}/base")
    assert tracking_uri("/runs") == os.environ["MLFLOW_TRACKING_URI"] == f"http://{NOBODY}/base"
    assert os.environ["MLFLOW_TRACKING_USERNAME"] == "slams"
    assert os.environ["MLFLOW_TRACKING_PASSWORD"] == f"{PLANTED}@"


def test_a_server_that_is_away_is_told_without_its_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://slams:{PLANTED}@{NOBODY}")
    with pytest.raises(ConfigError, match=NOBODY) as failure:
        Tracker(str(tmp_path), "e")
    assert PLANTED not in everything_said(failure.value)


def test_a_databases_password_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"postgresql://slams:{PLANTED}@{NOBODY}/mlflow")
    with pytest.raises(ConfigError, match="start an MLflow server") as failure:
        Tracker(str(tmp_path), "e")
    assert PLANTED not in everything_said(failure.value)


@pytest.mark.parametrize(
    "use",
    [
        lambda uri: storage.exists(uri),
        lambda uri: storage.read_table(f"{uri}/000000.parquet"),
        lambda uri: DataConfig(format="coco", root=uri),
        lambda uri: DataConfig(format="coco", root="/data", train_list=uri),
        lambda uri: BackboneConfig(weights=uri),
    ],
)
def test_a_key_in_the_address_of_a_store_is_refused(use: Callable[[str], object]) -> None:
    with pytest.raises(ConfigError, match="contains a password: remove it") as failure:
        use(f"s3://AKIA123:{PLANTED}@bucket/runs")
    assert PLANTED not in everything_said(failure.value)


def test_warnings_of_a_lost_server_strike_passwords_out(caplog: pytest.LogCaptureFixture) -> None:
    run = Run(f"http://{NOBODY}", "0" * 32)

    def refuse(run_id: str) -> None:
        raise OSError(f"no answer from http://u:{PLANTED}@{NOBODY}")

    with caplog.at_level(logging.DEBUG, logger="slams_ray"):
        run._send("params", refuse)
    assert "no answer from http://u:***@" in caplog.text
    assert PLANTED not in caplog.text


def test_a_failed_and_a_finished_stage_leave_no_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """MLflow's database, records, logs: every byte that two stages leave in a workspace."""
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PLANTED)
    address = f"http://u:{PLANTED}@h/x"

    def fail(_: object) -> Outcome:
        raise DataError(f"{address} cannot be read")

    with caplog.at_level(logging.DEBUG, logger="slams_ray"):
        session = TrackingSession(str(tmp_path), "e", "parent", "key", {"data.root": address})
        context = StageContext(
            workspace=str(tmp_path),
            compute=ComputeConfig(),
            tracking=None,  # type: ignore[arg-type]
            session=session,
        )
        run_stage(context, "prepare", {"seed": 0}, {}, lambda _: Outcome(num_rows=1))
        with pytest.raises(DataError), session:
            run_stage(context, "refine", {"root": address}, {}, fail)
    assert (tmp_path / "mlflow.db").exists()
    assert len(list(tmp_path.rglob("record.json"))) > 1
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [str(path) for path in files if PLANTED.encode() in path.read_bytes()] == []
    assert PLANTED not in caplog.text
    (failed,) = session.parent.client.search_runs(["1"], "tags.`slams.stage` = 'refine'")
    assert failed.data.tags["slams.error"] == "http://u:***@h/x cannot be read"


def test_a_training_is_shown_without_its_credentials() -> None:
    """Ray keeps the text of what a training is started with and shows it on its dashboard."""
    assert PLANTED in credentials().values()
    job = TrainingJob(
        label="encoder",
        training=None,  # type: ignore[arg-type]
        output_dir="/runs",
        num_steps=1,
        batch_size=1,
        checkpoint_every_steps=1,
        log_every_steps=1,
        seed=0,
        num_workers=1,
        min_workers=1,
        num_threads=None,
        data_loading_tasks=1,
        device="cpu",
        deterministic=False,
        cuda_graphs=False,
        max_failures=0,
        tracking_uri=f"http://{NOBODY}",
        run_id=None,
        credentials=credentials(),
    )
    assert PLANTED not in repr(job)
    assert PLANTED not in str({"job": PickledJob(pickle.dumps(job))})


def test_the_guard_of_runs_is_started_without_a_password(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everybody on the machine can read the arguments of a process."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://slams:{PLANTED}@{NOBODY}")
    watchdog = Watchdog(tracking_uri("/runs"))
    try:
        guards = [
            process.info["cmdline"]
            for process in psutil.process_iter(["cmdline"])
            if f"http://{NOBODY}" in (process.info["cmdline"] or [])
        ]
    finally:
        watchdog.release()
    (arguments,) = guards
    assert "slams_ray.runtime.watchdog" in arguments
    assert PLANTED not in " ".join(arguments)
