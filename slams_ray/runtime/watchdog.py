"""Ends MLflow runs of a process that died: both sides of a pipe, the parent's and the child's."""

import logging
import os
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from slams_ray.runtime.tracking import Run

logger = logging.getLogger(__name__)


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
        self._tell(f"guard {run.run_id}")

    def forget(self, run: "Run") -> None:
        """Stops watching a run that has ended."""
        self._tell(f"forget {run.run_id}")

    def release(self) -> None:
        """Lets the process go; nothing is changed in MLflow."""
        self._tell("release")
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
    guarded: set[str] = set()
    for line in sys.stdin:
        verb, _, run_id = line.strip().partition(" ")
        if verb == "release":
            return
        if verb == "guard":
            guarded.add(run_id)
        else:
            guarded.discard(run_id)
    # Imported only now: while its parent lives, this process costs 10 MB and no time.
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=sys.argv[1])
    for run_id in guarded - {"None"}:
        if client.get_run(run_id).info.status == "RUNNING":
            client.set_terminated(run_id, "KILLED")


if __name__ == "__main__":
    main()
