"""Retries of operations that a store or disk refuses temporarily."""

import errno
import logging
import time
from collections.abc import Callable
from typing import TypeVar

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

PATIENCE_SECONDS = 60.0
"""How long an operation is retried while a disk is full or a store is busy."""
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 8.0
_PASSING_ERRNOS = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EIO,
    errno.EAGAIN,
    errno.ESTALE,
    errno.ETIMEDOUT,
}
_PASSING_ANSWERS = (
    "SLOW_DOWN",
    "SERVICE_UNAVAILABLE",
    "INTERNAL_FAILURE",
    "NETWORK_CONNECTION",
    "REQUEST_TIMEOUT",
    "HTTP status: 5",
    "HTTP status 5",
    "HTTP status 429",
    "curlCode",
)
"""Parts of pyarrow's messages that report temporary errors; they include those Ray Data retries."""
_STORE_ANSWERS = ("AWS Error", "google::cloud", *_PASSING_ANSWERS)


def retried(path: str, operation: Callable[[], Result]) -> Result:
    """Runs an operation on a path and retries it after errors that may be temporary.

    Raises:
        OSError: the last error: at once if it is permanent, else after `PATIENCE_SECONDS`.
    """
    started, pause = time.monotonic(), FIRST_PAUSE_SECONDS
    while True:
        try:
            return operation()
        except OSError as error:
            waited = time.monotonic() - started
            if not _may_pass(error) or waited + pause > PATIENCE_SECONDS:
                raise
            logger.warning("%s cannot be accessed (%s): trying again", path, error)
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE_SECONDS)


def _may_pass(error: OSError) -> bool:
    return error.errno in _PASSING_ERRNOS or any(text in str(error) for text in _PASSING_ANSWERS)


def is_refusal(error: Exception) -> bool:
    """Whether an error comes from the store or disk. A damaged file gives an error without
    errno."""
    if not isinstance(error, OSError) or isinstance(error, FileNotFoundError):
        return False
    return error.errno is not None or any(text in str(error) for text in _STORE_ANSWERS)
