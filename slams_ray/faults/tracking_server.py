"""Runs an MLflow server that faults can stop and start again."""

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import psutil

from slams_ray.errors import TrainingError
from slams_ray.faults.nodes import HOST, free_port, kill

START_SECONDS = 90


class TrackingServer:
    """`mlflow server` on the loopback interface, with its own store.

    Args:
        directory: directory for database and log.
        artifacts: directory or URI of artifacts; None means a subdirectory of directory.
    """

    def __init__(self, directory: Path, artifacts: str | None = None) -> None:
        self._directory = directory
        self._artifacts = artifacts or str(directory / "artifacts")
        directory.mkdir(parents=True, exist_ok=True)
        self._port = free_port()
        self.uri = f"http://{HOST}:{self._port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts the server, and waits until it answers."""
        log = self._directory / "server.log"
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [
                    str(Path(sys.executable).with_name("mlflow")),
                    "server",
                    f"--backend-store-uri=sqlite:///{self._directory}/mlflow.db",
                    f"--artifacts-destination={self._artifacts}",
                    f"--host={HOST}",
                    f"--port={self._port}",
                    "--workers=1",
                ],
                cwd=self._directory,
                # Without this variable, seven more processes wait for evaluation jobs.
                env=os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise TrainingError(f"the MLflow server did not start, see {log}")
            time.sleep(0.5)

    def statuses(self) -> list[str]:
        """Returns the statuses of all runs in the first experiment after the default one."""
        request = urllib.request.Request(
            f"{self.uri}/api/2.0/mlflow/runs/search",
            json.dumps({"experiment_ids": ["1"], "max_results": 1000}).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as reply:
            return [run["info"]["status"] for run in json.loads(reply.read()).get("runs", [])]

    def kill(self) -> None:
        """Kills the server and its child processes."""
        if self._process is None:
            return
        server = psutil.Process(self._process.pid)
        for process in [*server.children(recursive=True), server]:
            kill(process)
        self._process.wait()
        self._process = None

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=5) as reply:
                return bool(reply.status == 200)
        except (urllib.error.URLError, OSError):
            return False
