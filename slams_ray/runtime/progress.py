"""Progress as log lines: readable in a terminal, in a file and in `ray job logs` alike."""

import logging
import time

logger = logging.getLogger(__name__)

SECONDS_BETWEEN_LINES = 10.0


class Progress:
    """Logs count, rate and remaining time at most every ten seconds; short work stays silent."""

    def __init__(self, label: str, total: int, unit: str, done: int = 0) -> None:
        self.label, self.total, self.unit = label, total, unit
        self.first, self.started = done, time.monotonic()
        self.last_line = self.started

    def rate(self, done: int) -> float:
        """Units per second since the start."""
        return (done - self.first) / max(time.monotonic() - self.started, 1e-9)

    def advance(self, done: int, note: str = "") -> None:
        """Reports that `done` of the total are finished."""
        if time.monotonic() - self.last_line < SECONDS_BETWEEN_LINES:
            return
        self.last_line = time.monotonic()
        rate = self.rate(done)
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
