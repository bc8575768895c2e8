"""Forwards the log lines of tasks and trials to the driver, in place of Ray's own forwarding."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from ray.exceptions import RayError
from ray.util.queue import Empty, Queue

logger = logging.getLogger(__name__)

_PACKAGE = "slams_ray"
_END = None


class LineRelay:
    """Context manager that logs in this process what `relayed` blocks log on any node.

    Attributes:
        queue: argument of `relayed` in the tasks.
    """

    def __init__(self) -> None:
        self.queue = Queue(actor_options={"num_cpus": 0})
        self._thread = threading.Thread(target=self._show, daemon=True)

    def __enter__(self) -> "LineRelay":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.queue.put(_END)
        except RayError as error:
            # The tasks are done, and their results matter more than their last lines.
            logger.warning("the last log lines of tasks are lost (%s)", _last_line(error))
        self._thread.join(timeout=10)
        self.queue.shutdown(force=True)

    def _show(self) -> None:
        while True:
            try:
                entry = self.queue.get(timeout=60)
            except Empty:
                continue
            except RayError as error:
                logger.warning("log lines of tasks are no longer shown (%s)", _last_line(error))
                return
            if entry is _END:
                return
            level, line = entry
            logger.log(level, "%s", line)


def _last_line(error: RayError) -> str:
    return str(error).strip().splitlines()[-1]


class _Forward(logging.Handler):
    def __init__(self, queue: Queue, label: str) -> None:
        super().__init__()
        self.queue, self.label = queue, label

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self.queue.put((record.levelno, f"{self.label} | {record.getMessage()}"))
        except RayError:
            # The node of the queue is gone, and the work matters more than its log lines.
            self.handleError(record)


@contextmanager
def relayed(queue: Queue, label: str) -> Iterator[None]:
    """Sends the lines that this package logs inside the block to the driver, after a label."""
    package = logging.getLogger(_PACKAGE)
    handler, level = _Forward(queue, label), package.level
    package.addHandler(handler)
    package.setLevel(logging.INFO)
    try:
        yield
    finally:
        package.removeHandler(handler)
        package.setLevel(level)
