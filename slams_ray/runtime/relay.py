"""Log lines of tasks and trials, shown by the driver: Ray's own forwarding is off."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from ray.exceptions import RayError
from ray.util.queue import Empty, Queue

_PACKAGE = "slams_ray"
_END = None


class LineRelay:
    """Shows in this process what `relayed` blocks log on whatever node; a context manager.

    Attributes:
        queue: to be handed to the tasks.
    """

    def __init__(self) -> None:
        self.queue = Queue(actor_options={"num_cpus": 0})
        self._thread = threading.Thread(target=self._show, daemon=True)

    def __enter__(self) -> "LineRelay":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.queue.put(_END)
        self._thread.join(timeout=10)
        self.queue.shutdown(force=True)

    def _show(self) -> None:
        logger = logging.getLogger(__name__)
        while True:
            try:
                entry = self.queue.get(timeout=60)
            except Empty:
                continue
            if entry is _END:
                return
            level, line = entry
            logger.log(level, "%s", line)


class _Forward(logging.Handler):
    def __init__(self, queue: Queue, label: str) -> None:
        super().__init__()
        self.queue, self.label = queue, label

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self.queue.put((record.levelno, f"{self.label} | {record.getMessage()}"))
        except RayError:
            # The queue's node is gone: the work matters more than its lines.
            self.handleError(record)


@contextmanager
def relayed(queue: Queue, label: str) -> Iterator[None]:
    """Sends the lines this package logs inside the block to the driver, with a label before."""
    package = logging.getLogger(_PACKAGE)
    handler, level = _Forward(queue, label), package.level
    package.addHandler(handler)
    package.setLevel(logging.INFO)
    try:
        yield
    finally:
        package.removeHandler(handler)
        package.setLevel(level)
