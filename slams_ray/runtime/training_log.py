"""Log of a training's metric points."""

import time

from slams_ray.runtime.progress import post_progress
from slams_ray.runtime.system_metrics import SystemMetrics
from slams_ray.runtime.tracking import Run
from slams_ray.runtime.training_job import TrainingJob, progress_path

_AXES = ("step", "time")
"""Position of a point, with time in seconds since the epoch; MLflow stores its own."""


class TrainingLog:
    """Adds the metric points of rank 0 to the history, sends them to MLflow and posts progress."""

    def __init__(
        self, job: TrainingJob, rank: int, first_step: int, history: list[dict[str, float]]
    ) -> None:
        self.job, self.rank, self.history = job, rank, history
        self.run = Run(job.tracking_uri, job.run_id if rank == 0 else None)
        if rank == 0:
            # A continued training has a new run, which must show the whole curve.
            for point in history:
                self._track(point)
        is_watched = job.system_metrics and rank == 0
        self._system = SystemMetrics(job.tracking_uri, job.run_id if is_watched else None)
        self.last_step, self.last_time = first_step, time.monotonic()

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
        self._track(self.history[-1])
        post_progress(progress_path(self.job.output_dir), step, rate, f"loss {metrics['loss']:.4f}")

    def flush_if_due(self) -> None:
        """Sends points that have waited long; call it at every step."""
        self.run.flush_if_due()

    def flush(self) -> None:
        """Sends all points; call it before a time without log points."""
        self.run.flush()

    @property
    def tracked(self) -> bool:
        """Whether MLflow has received everything so far."""
        return self.run.is_tracked

    def close(self) -> None:
        """Sends the remaining points, and waits a limited time for a server that is down."""
        self._system.stop()
        if self.rank == 0:
            self.run.flush()
            self.run.settle()

    def _track(self, point: dict[str, float]) -> None:
        metrics = {f"{self.job.label}/{k}": v for k, v in point.items() if k not in _AXES}
        self.run.log_metrics(metrics, int(point["step"]))
