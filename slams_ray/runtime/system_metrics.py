"""CPU, memory, network and GPU of the machine that trains, as metrics of the stage's MLflow run."""

import logging
from typing import Any

from slams_ray.runtime.environment import set_defaults
from slams_ray.runtime.retry_queue import first_line

logger = logging.getLogger(__name__)


class SystemMetrics:
    """Logs system metrics from a thread until `stop`. Trouble with it ends nothing.

    Args:
        run_id: run that gets the metrics; None logs nothing.
    """

    def __init__(self, uri: str, run_id: str | None) -> None:
        self._monitor: Any = None
        if run_id is None:
            return
        set_defaults()
        try:
            from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

            # A continued training has a new run, so steps start at 0.
            self._monitor = SystemMetricsMonitor(run_id, tracking_uri=uri)
            self._monitor.start()
        except Exception as error:
            logger.warning("system metrics are not logged (%s)", first_line(error))
            self._monitor = None

    def stop(self) -> None:
        """Ends the thread."""
        if self._monitor is not None:
            self._monitor.finish()
            self._monitor = None
