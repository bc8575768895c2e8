"""Ends MLflow runs of a process that is gone: both sides of a pipe, parent's and child's."""

import logging
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from slams_ray.runtime.tracking import Run

logger = logging.getLogger(__name__)

PATIENCE_SECONDS, PAUSE_SECONDS = 1800.0, 10.0
"""How long a process that is left behind asks for a server that is gone."""


class Watchdog:
    """A small process that ends runs as KILLED when this one dies without saying so.

    A handler cannot see SIGKILL or the kernel's out-of-memory killer; the end of a pipe can. `ray
    job stop` kills a driver and all its descendants, so it is none of them.
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
        # Of the process that has left a child behind.
        self._process.wait()

    def guard(self, run: "Run") -> None:
        """Watches a run from now on."""
        self._tell(f"guard {run.run_id} KILLED")

    def forget(self, run: "Run") -> None:
        """Stops watching a run that has ended."""
        self._tell(f"forget {run.run_id}")

    def hand_over(self, run: "Run", status: str) -> None:
        """Leaves it to the process to tell MLflow how a run has ended."""
        self._tell(f"guard {run.run_id} {status}")

    def release(self) -> None:
        """Lets the process go when it has ended what it still watches."""
        if self._process.stdin is not None:
            self._process.stdin.close()

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            logger.warning(
                "the process that guards MLflow runs has died; a killed run stays RUNNING"
            )


def main() -> None:
    """The child: outlives its parent and closes what it left open."""
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
        # Imported only now: while its parent lives, this process costs 10 MB and no time.
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
