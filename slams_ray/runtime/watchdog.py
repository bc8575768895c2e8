"""Watchdog that ends the MLflow runs of a process that died. It has both ends of the pipe."""

import logging
import os
import subprocess
import sys
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from slams_ray.runtime.tracking import Run

logger = logging.getLogger(__name__)

PATIENCE_SECONDS, PAUSE_SECONDS = 1800.0, 10.0
"""How long, and how often, the watchdog tries to reach a server that is down."""


class Watchdog:
    """A small process that sets runs to KILLED when this process dies unexpectedly.

    A signal handler cannot detect SIGKILL or the kernel's out-of-memory killer, but the end of a
    pipe does. `ray job stop` kills a driver and all its descendants, so the watchdog is detached.
    """

    def __init__(self, uri: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "slams_ray.runtime.watchdog", uri],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        self._lock = threading.Lock()
        # The started process forks the watchdog and exits.
        self._process.wait()

    def guard(self, run: "Run") -> None:
        """Watches a run from now on."""
        self._tell(f"guard {run.run_id} KILLED")

    def forget(self, run: "Run") -> None:
        """Stops watching a run that has ended."""
        self._tell(f"forget {run.run_id}")

    def hand_over(self, run: "Run", status: str) -> None:
        """Lets the watchdog report to MLflow how a run has ended."""
        self._tell(f"guard {run.run_id} {status}")

    def release(self) -> None:
        """Lets the watchdog exit after it has ended the runs that it still watches."""
        if self._process.stdin is not None:
            # Closing sends what a dead watchdog did not take; `_tell` has warned of its death.
            with suppress(BrokenPipeError):
                self._process.stdin.close()

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        try:
            with self._lock:
                self._process.stdin.write(line + "\n")
                self._process.stdin.flush()
        except BrokenPipeError:
            logger.warning("the watchdog of MLflow runs has died: a killed run will stay RUNNING")


def main() -> None:
    """Entry point of the watchdog: outlives its parent and ends the runs it left open."""
    if os.fork():
        os._exit(0)
    guarded: dict[str, str] = {}
    for line in sys.stdin:
        verb, run_id, *end = line.split()
        if verb == "guard":
            guarded[run_id] = end[0]
        else:
            guarded.pop(run_id, None)
    guarded.pop("None", None)
    until = time.monotonic() + PATIENCE_SECONDS
    while guarded and time.monotonic() < until:
        # Imported only now, so that the watchdog costs 10 MB and no time while its parent lives.
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        client = MlflowClient(tracking_uri=sys.argv[1])
        for run_id, status in list(guarded.items()):
            try:
                if client.get_run(run_id).info.status == "RUNNING":
                    client.set_terminated(run_id, status)
            except MlflowException as error:
                if error.get_http_status_code() >= 500:
                    time.sleep(PAUSE_SECONDS)
                    continue
            del guarded[run_id]


if __name__ == "__main__":
    main()
