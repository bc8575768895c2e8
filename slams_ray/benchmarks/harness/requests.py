"""Loads an HTTP service with a fixed number of concurrent requests, and times each answer."""

import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

PATIENCE_SECONDS = 120.0


@dataclass(frozen=True, kw_only=True)
class Load:
    """Answers to a number of requests.

    Attributes:
        seconds: (N,) float64 time of each answer, those of errors as well.
        num_failed: answers other than 200, and broken connections.
        total_seconds: time from the first request to the last answer.
    """

    seconds: np.ndarray
    num_failed: int
    total_seconds: float

    @property
    def per_second(self) -> float:
        """Answers per second."""
        return len(self.seconds) / self.total_seconds

    def milliseconds(self, percent: float) -> float:
        """Returns the percentile of the answers' times."""
        return 1000 * float(np.percentile(self.seconds, percent))


def load(address: str, bodies: Sequence[bytes], concurrency: int) -> Load:
    """Posts each body once, a fixed number at a time.

    Args:
        address: URL that answers POST requests.
        concurrency: clients, each of which sends its next request after an answer.
    """

    def timed(body: bytes) -> tuple[float, bool]:
        started = time.perf_counter()
        answered = _post(address, body)
        return time.perf_counter() - started, answered

    started = time.perf_counter()
    with ThreadPoolExecutor(concurrency) as clients:
        found = list(clients.map(timed, bodies))
    return Load(
        seconds=np.array([seconds for seconds, _ in found]),
        num_failed=sum(not answered for _, answered in found),
        total_seconds=time.perf_counter() - started,
    )


def _post(address: str, body: bytes) -> bool:
    request = urllib.request.Request(address, body, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as answer:
            answer.read()
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
