"""One driver at a time in a workspace: locally, on S3, and after one has died."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from slams_ray import storage
from slams_ray.config import PipelineConfig
from slams_ray.errors import ConfigError
from slams_ray.runtime import workspace_lock as module
from slams_ray.runtime.lock_file import lock_file
from slams_ray.runtime.workspace_lock import LOCK_NAME, Holder, workspace_lock
from slams_ray.stages import pipeline
from slams_ray.studies import ablate, compare

pytestmark = pytest.mark.slow

DRIVER = (
    "import signal, sys, time\n"
    "from slams_ray.runtime.workspace_lock import workspace_lock\n"
    # A shell that starts the tests in the background lets them ignore Ctrl-C.
    "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    "with workspace_lock(sys.argv[1], 'demo'):\n"
    "    print('working', flush=True)\n"
    "    time.sleep(600)\n"
)


@pytest.fixture(params=["local", "s3"])
def workspace(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "local":
        return str(tmp_path / "runs")
    return f"{request.getfixturevalue('object_store')}/locks/{request.node.name}"


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RENEW_SECONDS", 0.1)
    monkeypatch.setattr(module, "POLL_SECONDS", 0.05)
    monkeypatch.setattr(module, "STALE_SECONDS", 1.0)


@pytest.fixture
def start_driver() -> Iterator[Callable[[str], "subprocess.Popen[str]"]]:
    started = []

    def start(workspace: str) -> "subprocess.Popen[str]":
        command = [sys.executable, "-c", DRIVER, workspace]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "working\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def lay(workspace: str, holder: Holder) -> None:
    """Leaves the lock of a holder."""
    content = json.dumps(asdict(holder) | {"renewed": 0.0}).encode()
    storage.write_bytes(storage.join(workspace, LOCK_NAME), content)


def elsewhere() -> Holder:
    return replace(Holder.current("demo"), host="node-7", machine="node-7-1")


def lose(workspace: str) -> None:
    """Another driver takes over, and this one works on until it is interrupted."""
    lay(workspace, elsewhere())
    time.sleep(30)


def test_a_second_driver_is_told_who_works_there(
    workspace: str, start_driver: Callable[[str], "subprocess.Popen[str]"]
) -> None:
    first = start_driver(workspace)
    told = rf"in use by demo .*process {first.pid} on {socket.gethostname()}, since \d{{4}}-"
    with pytest.raises(ConfigError, match=told), workspace_lock(workspace, "demo"):
        pytest.fail("two drivers work")
    first.send_signal(signal.SIGINT)
    first.wait()
    with workspace_lock(workspace, "demo"):
        assert storage.exists(storage.join(workspace, LOCK_NAME))
    assert not storage.exists(storage.join(workspace, LOCK_NAME))


def test_a_rerun_right_after_kill_9_starts_at_once(
    workspace: str, start_driver: Callable[[str], "subprocess.Popen[str]"]
) -> None:
    start_driver(workspace).kill()
    began = time.monotonic()
    with workspace_lock(workspace, "demo"):
        assert time.monotonic() - began < 5


def test_another_process_with_the_id_of_the_dead_one_is_not_mistaken_for_it(
    tmp_path: Path,
) -> None:
    current = Holder.current("demo")
    lay(str(tmp_path), replace(current, started=current.started - 60))
    with workspace_lock(str(tmp_path), "demo"):
        pass


def test_a_dead_driver_of_another_machine_is_taken_over_and_a_living_one_is_not(
    workspace: str, fast: None
) -> None:
    lay(workspace, elsewhere())
    with workspace_lock(workspace, "demo"):
        pass
    lay(workspace, elsewhere())
    file = lock_file(storage.join(workspace, LOCK_NAME))
    content, version = file.read()
    sign = threading.Timer(0.3, lambda: file.renew(content + b" ", version))
    sign.start()
    with (
        pytest.raises(ConfigError, match=r"in use by demo.*on node-7"),
        workspace_lock(workspace, "demo"),
    ):
        pytest.fail("two drivers work")
    sign.join()


def test_a_lock_that_is_being_written_is_read_again(tmp_path: Path) -> None:
    (tmp_path / LOCK_NAME).touch()
    written = threading.Timer(0.2, lambda: lay(str(tmp_path), Holder.current("demo")))
    written.start()
    with (
        pytest.raises(ConfigError, match=f"in use by demo .*process {os.getpid()}"),
        workspace_lock(str(tmp_path), "demo"),
    ):
        pytest.fail("two drivers work")
    written.join()


def test_an_unreadable_lock_is_taken_over_when_nobody_renews_it(workspace: str, fast: None) -> None:
    storage.write_bytes(storage.join(workspace, LOCK_NAME), b"{")
    with workspace_lock(workspace, "demo"):
        pass


def test_a_lock_is_renewed_while_the_driver_works(workspace: str, fast: None) -> None:
    with workspace_lock(workspace, "demo"):
        file = lock_file(storage.join(workspace, LOCK_NAME))
        _, first = file.read()
        time.sleep(0.5)
        assert file.read()[1] != first


def test_of_two_that_find_a_dead_driver_one_takes_over(workspace: str) -> None:
    lay(workspace, elsewhere())
    file = lock_file(storage.join(workspace, LOCK_NAME))
    _, seen = file.read()
    assert file.replace(b"one", seen) is not None
    assert file.replace(b"two", seen) is None
    assert file.create(b"three") is None
    assert file.read()[0] == b"one"


def test_a_driver_that_has_lost_its_workspace_ends(workspace: str, fast: None) -> None:
    with (
        pytest.raises(ConfigError, match="another driver has taken over"),
        workspace_lock(workspace, "demo"),
    ):
        lose(workspace)
    assert b"node-7" in storage.read_bytes(storage.join(workspace, LOCK_NAME))


def test_so_does_one_that_was_started_in_the_background_and_ignores_ctrl_c(
    tmp_path: Path, fast: None
) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        test_a_driver_that_has_lost_its_workspace_ends(str(tmp_path), None)
    finally:
        signal.signal(signal.SIGINT, before)


def test_errors_and_interrupts_release_the_workspace(workspace: str) -> None:
    for error in (ValueError, KeyboardInterrupt, SystemExit):
        with pytest.raises(error), workspace_lock(workspace, "demo"):
            raise error
    assert not storage.exists(storage.join(workspace, LOCK_NAME))


def test_a_store_without_locks_says_so(caplog: pytest.LogCaptureFixture) -> None:
    with workspace_lock("gs://bucket/runs", "demo"):
        assert "gs://bucket/runs cannot be locked: start only one driver at a time" in caplog.text


def test_the_pipeline_and_both_studies_respect_the_lock(
    tmp_path: Path, tiny_config: PipelineConfig
) -> None:
    workspace = str(tmp_path)
    with workspace_lock(workspace, "demo"):
        for run in (
            lambda: pipeline.run(tiny_config, workspace, "tiny"),
            lambda: compare.run(tiny_config, workspace, "tiny", (0,)),
            lambda: ablate.run(tiny_config, workspace, "tiny", (0,)),
        ):
            with pytest.raises(ConfigError, match=f"in use by demo .*process {os.getpid()}"):
                run()
    assert list(tmp_path.iterdir()) == []
