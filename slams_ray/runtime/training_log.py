"""Metric points of a training: rank 0 posts them to a file, the driver shows and tracks them.

So workers need neither MLflow nor its credentials, and no step waits for a server.
"""

import json
import logging
import threading
import time
from collections.abc import Iterable, Mapping
from typing import Any

from slams_ray import storage
from slams_ray.runtime.progress import Progress
from slams_ray.runtime.tracking import Run
from slams_ray.runtime.training_job import TrainingJob

POSTED_POINTS = 100
"""Points in a post, which is written anew at each log point. Training results have all of them."""
SECONDS_BETWEEN_LOOKS = 2.0
_AXES = ("step", "time")
"""Position of a point, with time in seconds since the epoch."""

logger = logging.getLogger(__name__)


def progress_path(output_dir: str) -> str:
    """Path of the file in which rank 0 posts its last points for the driver."""
    return storage.join(output_dir, "progress.json")


class TrainingLog:
    """Adds the metric points of rank 0 to the history, and posts the last of them."""

    def __init__(
        self, job: TrainingJob, rank: int, first_step: int, history: list[dict[str, float]]
    ) -> None:
        self.job, self.rank, self.history = job, rank, history
        self.first_step = self.last_step = first_step
        self.last_time = time.monotonic()
        if rank == 0:
            self._post(0.0)

    def add(self, step: int, metrics: dict[str, float], learning_rate: float) -> None:
        if self.rank != 0:
            return
        now = time.monotonic()
        rate = (step - self.last_step) / (now - self.last_time)
        self.last_step, self.last_time = step, now
        point = metrics | {
            "learning_rate": learning_rate,
            "images_per_second": rate * self.job.batch_size,
        }
        self.history.append({"step": step, "time": time.time()} | point)
        self._post(rate)

    def _post(self, rate: float) -> None:
        steps = {"first_step": self.first_step, "step": self.last_step}
        post = steps | {"rate": rate, "points": self.history[-POSTED_POINTS:]}
        storage.write_bytes(progress_path(self.job.output_dir), json.dumps(post).encode())


class TrainingFollower:
    """Context manager that shows the posts of a training, and sends its points to MLflow.

    A point is sent once, also where a lost worker repeats its steps.
    """

    def __init__(self, job: TrainingJob) -> None:
        self.job = job
        self._progress = Progress(job.label, job.num_steps, "steps")
        # Its own connection, because a run serves one thread.
        self._run = Run(job.tracking_uri, job.run_id)
        self._sent: set[int] = set()
        self._first_step = 0
        self._path = progress_path(job.output_dir)
        # What an earlier driver left there is not this training's.
        self._last = self._posted()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> "TrainingFollower":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()
        self._run.flush()

    def finish(self, history: Iterable[Mapping[str, float]]) -> bool:
        """Sends what is missing of all points; returns whether MLflow has received everything.

        Waits a limited time for a server that is down.
        """
        self._stop()
        self._send(history)
        self._run.flush()
        self._run.settle()
        return self._run.is_tracked

    def _stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def _posted(self) -> bytes | None:
        return storage.read_bytes(self._path) if storage.exists(self._path) else None

    def _follow(self) -> None:
        while not self._stopped.wait(SECONDS_BETWEEN_LOOKS):
            posted = self._posted()
            if posted is not None and posted != self._last:
                self._last = posted
                self._show(posted)
            self._run.flush_if_due()

    def _show(self, posted: bytes) -> None:
        try:
            post: dict[str, Any] = json.loads(posted)
        except ValueError:
            # Half-written: an object store replaced the file during the read. More follow.
            return
        if post["first_step"] > self._first_step:
            self._first_step = post["first_step"]
            logger.info("%s continues after step %d", self.job.label, self._first_step)
        if post["rate"]:
            newest = post["points"][-1]
            self._progress.advance(newest["step"], post["rate"], f"loss {newest['loss']:.4f}")
        self._send(post["points"])

    def _send(self, points: Iterable[Mapping[str, float]]) -> None:
        for point in points:
            step = int(point["step"])
            if step not in self._sent:
                self._sent.add(step)
                named = {f"{self.job.label}/{k}": v for k, v in point.items() if k not in _AXES}
                self._run.log_metrics(named, step, point["time"])
