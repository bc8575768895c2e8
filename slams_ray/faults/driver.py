"""The process of a job that faults are injected into: started, watched, ended."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from slams_ray.errors import TrainingError

POLL_SECONDS = 0.05


class Driver:
    """A job with its output in a file.

    Args:
        arguments: of Python, such as `-m jobs.pipeline smoke`.
        environment: beside that of this process.
        entrance: put before the command, such as `ip netns exec NAME`.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        log: Path,
        entrance: Sequence[str] = (),
    ) -> None:
        self.log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [*entrance, sys.executable, *arguments],
                env=os.environ | dict(environment),
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def wait_until(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Whether the condition came true before the process ended.

        Raises:
            TrainingError: neither happened in time.
        """
        deadline = time.monotonic() + seconds
        while self.is_running:
            if condition():
                return True
            if time.monotonic() > deadline:
                self.signal(signal.SIGKILL)
                raise TrainingError(f"nothing happened for {seconds:.0f} s, see {self.log}")
            time.sleep(POLL_SECONDS)
        return condition()

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal to the driver alone, as a scheduler does."""
        if self.is_running:
            self._process.send_signal(number)

    def end(self, seconds: float) -> int:
        """Waits for the end; the exit status."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.signal(signal.SIGKILL)
            raise TrainingError(f"still running after {seconds:.0f} s, see {self.log}") from None
