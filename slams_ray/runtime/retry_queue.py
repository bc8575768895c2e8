"""Requests to an MLflow server that may be gone for a while: kept in order, sent when it is back.

Tracking trouble must not end hours of training. Who sends waits for no more than one try, and that
once a minute while the server is gone; only the end of a run and a new one wait for its return,
and not for long. The records in the workspace keep every number.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from enum import Enum
from typing import TypeVar

from slams_ray.redaction import redacted

logger = logging.getLogger(__name__)

Answer = TypeVar("Answer")

PATIENCE_SECONDS = 120.0
"""How long the end of a run waits for a server that is gone, once until it is back."""
FIRST_PAUSE, LONGEST_PAUSE = 2.0, 60.0
"""Seconds between tries; twice as long after each."""
MAX_FAULTS = 5
"""Times a request is sent to a server that answers it by an error of its own: half a minute."""
MAX_WAITING = 1000


class Trouble(Enum):
    """Why a request was not done, and so what to do with it."""

    GONE = "gone"
    """Nobody answers: wait."""
    FAULT = "fault"
    """The server fails at it: try a few times."""
    REFUSED = "refused"
    """It will never be done: leave it out."""


class RetryQueue:
    """Sends in order, at least once: an answer that is lost on the way may double a run or a row.

    For one process and one thread.

    Attributes:
        lost: whether requests were left out.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self.lost = False
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
        """Sends a request after those that wait, now or with a later one."""
        if len(self._waiting) == MAX_WAITING:
            self._drop("metrics of a long absence", "there is no room for more")
            return
        self._waiting.append((what, request))
        if time.monotonic() >= self._next_try:
            self._deliver()

    def ask(self, what: str, request: Callable[[], Answer]) -> Answer | None:
        """The answer to a request, waited for; None where the server is gone or refuses."""
        answers: list[Answer] = []
        entry = (what, lambda: answers.append(request()))
        self.send(*entry)
        if not self.settle() and entry in self._waiting:
            # Nobody would know the answer any more.
            self._waiting.remove(entry)
            self._drop(what, "nobody answers")
        return answers[0] if answers else None

    def settle(self) -> bool:
        """Waits until everything is sent, `PATIENCE_SECONDS` at most; whether it is.

        A server that stayed away for so long is waited for no more until it has answered.
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
        """Sends what waits until the server is found gone; whether nothing waits any more."""
        while self._waiting:
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
        if self._pause:
            logger.info("MLflow at %s answers again", self.uri)
        self._pause = self._next_try = 0.0
        self._patient = True
        return True

    def _note_gone(self, error: Exception) -> None:
        if not self._pause:
            logger.warning(
                "MLflow at %s does not answer as it should (%s): what is to be logged is kept "
                "until it does",
                self.uri,
                first_line(error),
            )
        self._pause = min(max(FIRST_PAUSE, 2 * self._pause), LONGEST_PAUSE)
        self._next_try = time.monotonic() + self._pause

    def _drop(self, what: str, reason: str) -> None:
        if what not in self._refused:
            logger.warning(
                "MLflow at %s has not taken %s (%s): left out, the workspace keeps every number",
                self.uri,
                what,
                reason,
            )
        self._refused.add(what)
        self.lost = True

    def _note_absence(self) -> None:
        if self._patient:
            logger.warning(
                "MLflow at %s stays away: %d requests wait for it as long as this process runs, "
                "the workspace keeps every number",
                self.uri,
                len(self._waiting),
            )
        self._patient = False


_NO_ANSWER = {"ConnectionError", "TimeoutError", "Timeout", "HTTPClientError"}
"""Names of the errors, and of the classes they derive from, by which Python, requests and botocore
say that nobody answered."""
_COMES_BACK = {408, 429, 502, 503, 504}
"""HTTP states of a server that is starting, busy or behind a proxy that misses it."""


def diagnose(error: Exception) -> Trouble:
    """What an error of MLflow, requests or botocore, and those it was raised from, tell."""
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
    """Of what an error says, without passwords."""
    return redacted((str(error) or repr(error)).splitlines()[0])
