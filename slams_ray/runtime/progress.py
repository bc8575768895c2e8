"""Progress as log lines, which are readable in terminals, files and `ray job logs`."""

import json
import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

logger = logging.getLogger(__name__)

FORMAT = "SLAMS_LOG"
SECONDS_BETWEEN_LINES = 10.0


class JsonFormatter(logging.Formatter):
    """One JSON object per line, for programs that collect logs."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)


def log_to_stdout() -> None:
    """Shows the log lines of this package alone on standard output.

    The environment variable SLAMS_LOG=json makes each line a JSON object.
    """
    package = logging.getLogger("slams_ray")
    if not package.handlers:
        handler = logging.StreamHandler(sys.stdout)
        text = logging.Formatter("%(asctime)s  %(message)s", "%H:%M:%S")
        handler.setFormatter(JsonFormatter() if os.environ.get(FORMAT) == "json" else text)
        package.addHandler(handler)
    package.setLevel(logging.INFO)
    package.propagate = False


@contextmanager
def log_kept(path: str) -> Iterator[None]:
    """Appends the log lines that this program shows of the package to a file on this machine."""
    package = logging.getLogger("slams_ray")
    # Made with the first line: a program that shows none gets no file.
    handler = logging.FileHandler(path, delay=True, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s  %(message)s", "%Y-%m-%d %H:%M:%S"))
    package.addHandler(handler)
    try:
        yield
    finally:
        package.removeHandler(handler)
        handler.close()


class Progress:
    """Logs count, rate and remaining time at most every ten seconds; short work logs nothing."""

    def __init__(self, label: str, total: int, unit: str) -> None:
        self.label, self.total, self.unit = label, total, unit
        self.last_line = self.started = time.monotonic()

    def advance(self, done: int, rate: float | None = None, note: str = "") -> None:
        """Reports that `done` units are finished, at `rate` units per second if it is known."""
        if time.monotonic() - self.last_line < SECONDS_BETWEEN_LINES:
            return
        self.last_line = time.monotonic()
        if rate is None:
            rate = done / (time.monotonic() - self.started)
        left = _clock((self.total - done) / rate) if rate else "unknown time"
        logger.info(
            "%s  %d/%d %s  %.2f %s/s  %s left%s",
            self.label,
            done,
            self.total,
            self.unit,
            rate,
            self.unit,
            left,
            f"  {note}" if note else "",
        )


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
