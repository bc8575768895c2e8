"""Starts, watches and ends the driver process of a job that faults are injected into."""

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
    """Driver process of a job. A log file collects its output.

    Args:
        arguments: arguments of Python, such as `-m jobs.pipeline smoke`.
        environment: variables that are added to those of this process.
        log: log file, which is appended to.
        entrance: prefix of the command, such as `ip netns exec NAME`.
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
        """Waits, and returns whether the condition became true before the process ended.

        Raises:
            TrainingError: neither happened within the given seconds.
        """
        deadline = time.monotonic() + seconds
        while self.is_running:
            if condition():
                return True
            if time.monotonic() > deadline:
                self.signal(signal.SIGKILL)
                raise TrainingError(
                    f"the driver is not in the expected state after {seconds:.0f} s, see {self.log}"
                )
            time.sleep(POLL_SECONDS)
        return condition()

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal to the driver process alone, as a scheduler does."""
        if self.is_running:
            self._process.send_signal(number)

    def end(self, seconds: float) -> int:
        """Waits for the end of the process, and returns its exit status.

        Raises:
            TrainingError: the process still runs after the given seconds. It is killed.
        """
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.signal(signal.SIGKILL)
            raise TrainingError(
                f"the driver still runs after {seconds:.0f} s, see {self.log}"
            ) from None
