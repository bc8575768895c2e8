"""Queue of requests to an MLflow server, which keeps them in order while the server is down.

Problems with tracking must not end hours of training. A call blocks for at most one attempt, and
retries at most once a minute while the server is down. Only the start and the end of a run wait
for the server, for a limited time. The records in the workspace contain every number.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from enum import Enum
from typing import TypeVar

from slams_ray.redaction import redacted

logger = logging.getLogger(__name__)

Answer = TypeVar("Answer")

PATIENCE_SECONDS = 120.0
"""How long the end of a run waits for a server that is down; only the first wait is that long."""
FIRST_PAUSE, LONGEST_PAUSE = 2.0, 60.0
"""Seconds between attempts, doubled after each attempt."""
MAX_FAULTS = 5
"""Number of attempts for a request that the server answers with an internal error."""
MAX_WAITING = 1000


class Trouble(Enum):
    """Why a request failed, and what to do next."""

    GONE = "gone"
    """The server does not answer: wait."""
    FAULT = "fault"
    """The server has an internal error: retry a few times."""
    REFUSED = "refused"
    """The server refuses the request: drop it."""


class RetryQueue:
    """Sends requests in order and at least once: a lost answer can duplicate a run or a row.

    Threads of one process may share a queue.

    Attributes:
        lost: whether requests were dropped.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self.lost = False
        self._lock = threading.RLock()
        self._waiting: deque[tuple[str, Callable[[], object]]] = deque()
        self._refused: set[str] = set()
        self._faults = 0
        self._pause = 0.0
        self._next_try = 0.0
        self._patient = True

    @property
    def is_empty(self) -> bool:
        return not self._waiting

    def send(self, what: str, request: Callable[[], object]) -> None:
        """Queues a request, and sends the queue unless the next attempt is due later."""
        with self._lock:
            if len(self._waiting) == MAX_WAITING:
                self._drop("metrics of a long absence", "the queue is full")
                return
            self._waiting.append((what, request))
            if time.monotonic() >= self._next_try:
                self._deliver()

    def ask(self, what: str, request: Callable[[], Answer]) -> Answer | None:
        """Sends a request and waits for its answer; None if the server is down or refuses."""
        answers: list[Answer] = []
        entry = (what, lambda: answers.append(request()))
        self.send(*entry)
        if not self.settle():
            with self._lock:
                if entry in self._waiting:
                    # Nobody would receive a later answer.
                    self._waiting.remove(entry)
                    self._drop(what, "the server does not answer")
        return answers[0] if answers else None

    def settle(self) -> bool:
        """Waits at most `PATIENCE_SECONDS` for the queue to empty; returns whether it is empty.

        After such a wait fails, later calls do not wait until the server has answered.
        """
        until = time.monotonic() + (PATIENCE_SECONDS if self._patient else 0.0)
        while not self._deliver():
            now = time.monotonic()
            if now >= until:
                self._note_absence()
                return False
            time.sleep(min(self._pause, until - now))
        return True

    def _deliver(self) -> bool:
        """Sends queued requests until one fails; returns whether the queue is empty."""
        with self._lock:
            while self._waiting:
                if not self._deliver_first():
                    return False
            if self._pause:
                logger.info("MLflow at %s answers again", self.uri)
            self._pause = self._next_try = 0.0
            self._patient = True
            return True

    def _deliver_first(self) -> bool:
        """Sends the first request; returns whether it has left the queue, sent or dropped."""
        what, request = self._waiting[0]
        try:
            request()
        except Exception as error:
            trouble = diagnose(error)
            self._faults += trouble is Trouble.FAULT
            is_worth_a_try = trouble is Trouble.FAULT and self._faults < MAX_FAULTS
            if trouble is Trouble.GONE or is_worth_a_try:
                self._note_gone(error)
                return False
            self._drop(what, first_line(error))
        self._faults = 0
        self._waiting.popleft()
        return True

    def _note_gone(self, error: Exception) -> None:
        if not self._pause:
            logger.warning(
                "MLflow at %s does not answer (%s): requests are queued until it does",
                self.uri,
                first_line(error),
            )
        self._pause = min(max(FIRST_PAUSE, 2 * self._pause), LONGEST_PAUSE)
        self._next_try = time.monotonic() + self._pause

    def _drop(self, what: str, reason: str) -> None:
        if what not in self._refused:
            logger.warning(
                "MLflow at %s did not accept %s (%s): dropped, the workspace keeps every number",
                self.uri,
                what,
                reason,
            )
        self._refused.add(what)
        self.lost = True

    def _note_absence(self) -> None:
        if self._patient:
            logger.warning(
                "MLflow at %s is still down: %d requests stay queued while this process runs, the "
                "workspace keeps every number",
                self.uri,
                len(self._waiting),
            )
        self._patient = False


_NO_ANSWER = {"ConnectionError", "TimeoutError", "Timeout", "HTTPClientError"}
"""Names of error classes with which Python, requests and botocore report a missing answer."""
_COMES_BACK = {408, 429, 502, 503, 504}
"""HTTP status codes of a server that is starting, busy or unreachable for its proxy."""


def diagnose(error: Exception) -> Trouble:
    """Classifies an error of MLflow, requests or botocore by its type, causes and HTTP status."""
    causes = list(_causes(error))
    if any(c.__name__ in _NO_ANSWER for cause in causes for c in type(cause).__mro__):
        return Trouble.GONE
    states = [state for cause in causes if (state := _http_state(cause)) is not None]
    if not states:
        return Trouble.REFUSED
    if states[0] in _COMES_BACK:
        return Trouble.GONE
    return Trouble.FAULT if states[0] >= 500 else Trouble.REFUSED


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _http_state(error: BaseException) -> int | None:
    from mlflow.exceptions import MlflowException

    response = getattr(error, "response", None)
    if isinstance(response, dict):
        return response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    if response is not None:
        return getattr(response, "status_code", None)
    return int(error.get_http_status_code()) if isinstance(error, MlflowException) else None


def first_line(error: Exception) -> str:
    """Returns the first line of an error's message, without passwords."""
    return redacted((str(error) or repr(error)).splitlines()[0])
