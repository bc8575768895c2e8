"""MLflow as `make ui` starts it: a web page that resolves to this machine gets nothing from it."""

import http.client
import os
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent


def ui_command(workspace: Path, port: int) -> list[str]:
    """The server's command line, as make would run it."""
    make = [
        "make",
        "--dry-run",
        "ui",
        f"WORKSPACE={workspace}",
        f"PORT={port}",
        f"VENV={BIN.parent}",
    ]
    printed = subprocess.run(make, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    (line,) = (line for line in printed.splitlines() if "mlflow server" in line)
    return ["env", *shlex.split(line)]


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        number = free.getsockname()[1]
    workspace = tmp_path_factory.mktemp("ui")
    command = ui_command(workspace, number)
    environment = os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true"}
    with (workspace / "server.log").open("w") as log:
        server = subprocess.Popen(
            command, cwd=workspace, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        deadline = time.monotonic() + 180
        while status(number, f"127.0.0.1:{number}", "GET", "/health") is None:
            assert server.poll() is None, (workspace / "server.log").read_text()
            assert time.monotonic() < deadline, (workspace / "server.log").read_text()
            time.sleep(0.5)
        yield number
    finally:
        os.killpg(server.pid, 15)
        server.wait(timeout=60)


def status(port: int, host: str, method: str, path: str, origin: str = "") -> int | None:
    """HTTP status of a request under a host name; None while nobody listens."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    headers = {"Host": host, "Content-Type": "application/json"}
    if origin:
        headers["Origin"] = origin
    body = '{"name": "planted"}' if method == "POST" else None
    try:
        connection.request(method, path, body, headers)
        return connection.getresponse().status
    except ConnectionRefusedError:
        return None
    finally:
        connection.close()


CREATE = "/api/2.0/mlflow/experiments/create"
SEARCH = "/api/2.0/mlflow/experiments/search?max_results=5"


@pytest.mark.slow
def test_only_requests_to_this_machines_names_are_answered(port: int) -> None:
    own = f"127.0.0.1:{port}"
    assert status(port, own, "GET", SEARCH) == 200
    assert status(port, f"localhost:{port}", "GET", SEARCH) == 200
    for foreign in ("evil.example", f"evil.example:{port}", f"127.0.0.1.evil.example:{port}"):
        assert status(port, foreign, "GET", SEARCH) == 403
        assert status(port, foreign, "POST", CREATE) == 403
    assert status(port, own, "POST", CREATE, origin="http://evil.example") == 403
    assert status(port, own, "POST", CREATE) == 200
