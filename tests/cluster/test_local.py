"""cluster/local.sh: starts, takes jobs with the token only, listens on loopback, goes whole."""

import glob
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "cluster" / "local.sh"
BIN = Path(sys.executable).parent


def run(*command: str | Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=ROOT, env=env, capture_output=True, text=True, check=False, timeout=1500
    )


def free_ports() -> tuple[int, int]:
    """The first of two neighbours, and another."""
    while True:
        with socket.socket() as first, socket.socket() as second, socket.socket() as third:
            first.bind(("127.0.0.1", 0))
            port = first.getsockname()[1]
            third.bind(("127.0.0.1", 0))
            try:
                second.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
            return port, third.getsockname()[1]


@pytest.fixture(scope="module")
def directory() -> Iterator[Path]:
    """Short, because Ray's sockets stand below it."""
    path = Path(tempfile.mkdtemp(prefix="slr", dir="/tmp"))
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def environment(directory: Path) -> dict[str, str]:
    port, dashboard_port = free_ports()
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "SLAMS_"))}
    return inherited | {
        "HOME": str(directory / "home"),
        "SLAMS_RAY_DIR": str(directory / "cluster"),
        "SLAMS_RAY_BIN": str(BIN),
        "SLAMS_RAY_PORT": str(port),
        "SLAMS_DASHBOARD_PORT": str(dashboard_port),
        "SLAMS_RAY_ARGS": "--object-store-memory=100000000",
    }


@dataclass(frozen=True)
class Running:
    environment: dict[str, str]
    directory: Path
    printed: str

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.environment['SLAMS_DASHBOARD_PORT']}"

    def submit(
        self, *entrypoint: str, options: Sequence[str] = ()
    ) -> subprocess.CompletedProcess[str]:
        return self.job("submit", "--working-dir", ".", *options, "--", *entrypoint)

    def job(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        client = {"RAY_AUTH_MODE": "token", "RAY_API_SERVER_ADDRESS": self.url}
        return run(BIN / "ray", "job", *arguments, env=self.environment | client)


@pytest.fixture(scope="module")
def running(directory: Path, environment: dict[str, str]) -> Iterator[Running]:
    (directory / "home").mkdir()
    try:
        started = run(SCRIPT, "start", env=environment)
        assert started.returncode == 0, started.stderr
        yield Running(environment, directory, started.stdout)
    finally:
        stopped = run(SCRIPT, "stop", env=environment)
    assert stopped.returncode == 0, stopped.stderr
    assert run(SCRIPT, "status", env=environment).returncode == 1
    assert not list((directory / "cluster").glob("*.pid"))


def test_bash_can_read_it() -> None:
    assert run("bash", "-n", SCRIPT, env=dict(os.environ)).stderr == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "start [NODES], status or stop"),
        (["restart"], "start [NODES], status or stop"),
        (["start", "two"], "NODES is two, expected a number"),
        (["status"], "no cluster runs in"),
    ],
)
def test_what_it_cannot_do_is_told(
    environment: dict[str, str], arguments: list[str], message: str
) -> None:
    shown = run(SCRIPT, *arguments, env=environment)
    assert shown.returncode == 1
    assert message in shown.stderr


def test_a_port_in_use_is_named(environment: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = str(server.getsockname()[1])
        shown = run(SCRIPT, "start", env=environment | {"SLAMS_DASHBOARD_PORT": taken})
    assert shown.returncode == 1
    assert f"port {taken} is in use" in shown.stderr


@pytest.mark.ray
def test_it_prints_how_to_submit(running: Running) -> None:
    exports, submission = running.printed.splitlines()
    assert "RAY_AUTH_MODE=token" in exports
    assert f"RAY_API_SERVER_ADDRESS={running.url}" in exports
    assert submission.startswith(f"ray job submit --working-dir {ROOT} -- python -m jobs.")


@pytest.mark.ray
def test_the_token_and_the_directory_are_ours_alone(running: Running) -> None:
    token = running.directory / "home" / ".ray" / "auth_token"
    assert token.stat().st_mode & 0o777 == 0o600
    assert (running.directory / "cluster").stat().st_mode & 0o777 == 0o700


@pytest.mark.ray
def test_without_the_token_nothing_is_answered(running: Running) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{running.url}/api/jobs/", timeout=30)
    refused.value.close()
    assert refused.value.code == 401


@pytest.mark.ray
def test_a_job_succeeds_or_fails_with_its_message(running: Running) -> None:
    good = running.submit("python", "-m", "jobs.pipeline", "demo", "--dry-run")
    assert good.returncode == 0, good.stdout + good.stderr
    assert "data.format = synthetic" in good.stdout
    bad = running.submit("python", "-m", "jobs.pipeline", "demo", "--crf.gt-prob", "1.5")
    assert bad.returncode == 1
    assert "crf.gt_prob is 1.5" in bad.stdout


@pytest.mark.ray
@pytest.mark.long
def test_a_stopped_job_is_marked_and_the_same_command_continues(
    running: Running, tmp_path: Path
) -> None:
    """With variables of its own, which the worker that logs the steps has too, and a CPU."""
    store = f"sqlite:///{tmp_path}/elsewhere.db"
    variables = json.dumps({"env_vars": {"MLFLOW_TRACKING_URI": store}})
    options = ["--runtime-env-json", variables, "--entrypoint-num-cpus", "1"]
    command = ["python", "-m", "jobs.pipeline", "smoke", "--workspace", f"{tmp_path}/smoke"]
    begun = running.submit(*command, options=[*options, "--no-wait", "--submission-id", "first"])
    assert begun.returncode == 0, begun.stdout + begun.stderr
    prepared = f"{tmp_path}/smoke/prepare/*/record.json"
    wait_until(lambda: bool(glob.glob(prepared)), "prepare ends")
    assert running.job("stop", "first").returncode == 0
    wait_until(lambda: "RUNNING" not in run_statuses(store).values(), "MLflow has no run open")
    assert run_statuses(store)["smoke"] == "KILLED"
    again = running.submit(*command, options=options)
    assert again.returncode == 0, again.stdout + again.stderr
    assert re.search(r"prepare +kept", again.stdout)
    assert "segmentation_miou" in again.stdout
    assert set(run_statuses(store).values()) <= {"FINISHED", "KILLED"}
    assert run_statuses(store)["smoke"] == "FINISHED"
    assert num_steps(store, "train_encoder") > 1


def wait_until(holds: Callable[[], bool], what: str, seconds: float = 600) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"waited in vain until {what}"
        time.sleep(1)


def run_statuses(store: str) -> dict[str, str]:
    """Name -> status of every MLflow run; of one name the newest."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=store)
    ids = [experiment.experiment_id for experiment in client.search_experiments()]
    runs = client.search_runs(ids, order_by=["attributes.start_time"])
    return {run.data.tags["mlflow.runName"]: run.info.status for run in runs}


def num_steps(store: str, stage: str) -> int:
    """Steps at which the newest run of a stage has logged a loss."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=store)
    ids = [experiment.experiment_id for experiment in client.search_experiments()]
    newest = client.search_runs(ids, f"tags.`slams.stage` = '{stage}'")[0]
    names = [name for name in newest.data.metrics if name.endswith("loss")]
    return max(len(client.get_metric_history(newest.info.run_id, name)) for name in names)


@pytest.mark.ray
@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="reads Linux's /proc")
def test_a_single_node_listens_on_loopback_only(running: Running) -> None:
    group = int((running.directory / "cluster" / "head.pid").read_text())
    loopback = {"0100007F", "0000000000000000FFFF00000100007F"}
    assert listening_addresses(group) == loopback
    # ps cuts lines at an exported width, and the nodes are told by the end of theirs.
    narrow = running.environment | {"COLUMNS": "80"}
    assert run(SCRIPT, "status", env=narrow).returncode == 0


def listening_addresses(group: int) -> set[str]:
    """Local addresses, as /proc writes them, of the listening sockets of a process group."""
    inodes = {inode for process in processes_of(group) for inode in socket_inodes(process)}
    rows = [
        line.split()
        for table in ("tcp", "tcp6")
        for line in Path("/proc/net", table).read_text().splitlines()[1:]
    ]
    listening = "0A"
    return {row[1].split(":")[0] for row in rows if row[3] == listening and row[9] in inodes}


def processes_of(group: int) -> Iterator[Path]:
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(ProcessLookupError):
            if os.getpgid(int(process.name)) == group:
                yield process


def socket_inodes(process: Path) -> Iterator[str]:
    for descriptor in process.glob("fd/*"):
        with suppress(FileNotFoundError):
            yield from re.findall(r"socket:\[(\d+)\]", os.readlink(descriptor))


WORK_ON_BOTH_NODES = """
import os, ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
ray.init()
@ray.remote(num_cpus=0)
def work():
    return os.listdir()
for node in ray.nodes():
    where = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
    ray.get(work.options(scheduling_strategy=where).remote())
assert os.path.exists(os.path.join(os.getcwd(), "pyproject.toml"))
"""


@pytest.mark.long
def test_further_nodes_share_the_cores_and_end_with_the_head(
    directory: Path, environment: dict[str, str]
) -> None:
    port, dashboard_port = free_ports()
    own = environment | {
        "HOME": str(directory / "home of two"),
        "SLAMS_RAY_DIR": str(directory / "two"),
        "SLAMS_RAY_PORT": str(port),
        "SLAMS_DASHBOARD_PORT": str(dashboard_port),
    }
    Path(own["HOME"]).mkdir()
    try:
        started = run(SCRIPT, "start", "1", env=own)
        assert started.returncode == 0, started.stderr

        def status() -> str:
            shown = run(SCRIPT, "status", env=own)
            assert shown.returncode == 0, shown.stderr
            return shown.stdout

        def shows_both() -> bool:
            return len(re.findall(r"^ 1 node_", status(), re.MULTILINE)) == 2

        wait_until(shows_both, "both nodes", seconds=60)
        cores = len(os.sched_getaffinity(0))
        assert f"/{2 * max(cores // 2, 1):.1f} CPU" in status()
        job = Running(own, directory, started.stdout).submit("python", "-c", WORK_ON_BOTH_NODES)
        assert job.returncode == 0, job.stdout + job.stderr
    finally:
        stopped = run(SCRIPT, "stop", env=own)
    assert stopped.returncode == 0, stopped.stderr
    assert not list((directory / "two").glob("*.pid"))
