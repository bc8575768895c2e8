"""Requests to an MLflow server that may be gone for a while: kept in order, sent when it is back.

Tracking trouble must not end hours of training: whoever sends never waits for the server, except at
the end of a run and for a new one, and then not for long. The records in the workspace keep every
number.
"""

import logging
import time
from collections import deque
from collections.abc import Callable
from typing import TypeVar

from slams_ray.redaction import redacted

logger = logging.getLogger(__name__)

Answer = TypeVar("Answer")

PATIENCE_SECONDS = 120.0
"""How long the end of a run waits for a server that is gone."""
FIRST_PAUSE, LONGEST_PAUSE = 2.0, 60.0
"""Seconds between tries; twice as long after each."""
MAX_WAITING = 1000


class Outbox:
    """Sends in order, at least once; for one process and one thread.

    Attributes:
        closed: the server was gone for too long, nothing is sent any more.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self.closed = False
        self._waiting: deque[tuple[str, Callable[[], object]]] = deque()
        self._refused: set[str] = set()
        self._pause = 0.0
        self._next_try = 0.0

    def send(self, what: str, request: Callable[[], object]) -> None:
        """Sends a request after those that wait, now or with a later one."""
        if self.closed:
            return
        self._waiting.append((what, request))
        if len(self._waiting) > MAX_WAITING:
            self._close()
        elif time.monotonic() >= self._next_try:
            self._deliver()

    def ask(self, what: str, request: Callable[[], Answer]) -> Answer | None:
        """The answer to a request, waited for; None where the server is gone or refuses."""
        answers: list[Answer] = []
        self.send(what, lambda: answers.append(request()))
        self.settle()
        return answers[0] if answers else None

    def settle(self) -> None:
        """Waits until everything is sent; gives up, and closes, after `PATIENCE_SECONDS`."""
        until = time.monotonic() + PATIENCE_SECONDS
        while self._waiting and not self._deliver():
            if time.monotonic() >= until:
                self._close()
            else:
                time.sleep(min(self._pause, max(0.0, until - time.monotonic())))

    def _deliver(self) -> bool:
        """Sends what waits until the server is found gone; whether nothing waits any more."""
        while self._waiting:
            what, request = self._waiting[0]
            try:
                request()
            except Exception as error:
                if _is_gone(error):
                    self._note_gone(error)
                    return False
                self._note_refused(what, error)
            self._waiting.popleft()
        if self._pause:
            logger.info("MLflow at %s answers again and has what was kept for it", self.uri)
        self._pause = self._next_try = 0.0
        return True

    def _note_gone(self, error: Exception) -> None:
        if not self._pause:
            logger.warning(
                "MLflow at %s does not answer (%s): what is to be logged is kept until it does",
                self.uri,
                first_line(error),
            )
        self._pause = min(max(FIRST_PAUSE, 2 * self._pause), LONGEST_PAUSE)
        self._next_try = time.monotonic() + self._pause

    def _note_refused(self, what: str, error: Exception) -> None:
        if what not in self._refused:
            logger.warning(
                "MLflow at %s refuses %s (%s): left out, the workspace keeps every number",
                self.uri,
                what,
                first_line(error),
            )
        self._refused.add(what)

    def _close(self) -> None:
        logger.warning(
            "MLflow at %s stays away: %d requests are dropped and this run is tracked no further, "
            "the workspace keeps every number",
            self.uri,
            len(self._waiting),
        )
        self.closed = True
        self._waiting.clear()


def _is_gone(error: Exception) -> bool:
    """Whether the same request may succeed later."""
    from mlflow.exceptions import MlflowException

    if isinstance(error, MlflowException):
        return int(error.get_http_status_code()) >= 500
    # Of requests, say; a file that is to be uploaded and was removed will not come back.
    return isinstance(error, OSError) and not isinstance(error, FileNotFoundError)


def first_line(error: Exception) -> str:
    """Of what an error says, without passwords."""
    return redacted((str(error) or repr(error)).splitlines()[0])
