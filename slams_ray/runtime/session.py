"""MLflow runs of one pipeline, opened on first use and ended with the pipeline's outcome."""

import json
import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from slams_ray import storage
from slams_ray.errors import SlamsError
from slams_ray.runtime.tracking import Run, Tracker
from slams_ray.runtime.watchdog import Watchdog

logger = logging.getLogger(__name__)

_PARENTS = "mlflow_runs"


class TrackingSession:
    """Opens the parent run when the first stage runs, so a rerun without work opens no run.

    As a context manager it ends the parent run with the outcome of the block.

    Args:
        key: identifies the pipeline's settings; a rerun with the same key continues the same parent
            run.
        group: id of the run, for example of a study, that contains the parent run.
        tags: tags of the parent run.
    """

    def __init__(
        self,
        workspace: str,
        experiment: str,
        name: str,
        key: str,
        params: Mapping[str, Any],
        group: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        self.workspace, self.experiment = workspace, experiment
        self.name, self.key, self.params, self.group = name, key, params, group
        self.tags = dict(tags or {})
        self.parent: Run | None = None
        self._lock = threading.Lock()
        self._tracker: Tracker | None = None
        self._watchdog: Watchdog | None = None

    def open(self) -> Run:
        """Returns the parent run, which is created or continued on first use."""
        with self._lock:
            if self.parent is None:
                self._tracker = Tracker(self.workspace, self.experiment, self.group is not None)
                self._watchdog = Watchdog(self._tracker.uri)
                self.parent = self._continue() or self._create()
                if self.tags:
                    self.parent.set_tags(self.tags)
                self._watchdog.guard(self.parent)
            return self.parent

    @contextmanager
    def stage_run(self, stage: str, name: str | None = None) -> Iterator[Run]:
        """Opens a child run, which ends as FINISHED, FAILED with its reason, or KILLED.

        Args:
            name: name of the run; None is the stage's.
        """
        parent = self.open()
        assert self._tracker is not None
        assert self._watchdog is not None
        run = self._tracker.start(name or stage, {"slams.stage": stage}, parent)
        self._watchdog.guard(run)
        status = "KILLED"
        try:
            yield run
            status = "FINISHED"
        except Exception as error:
            status = "FAILED"
            run.set_tags({"slams.error": str(error)[:4000]})
            raise
        finally:
            self._end(run, status)

    def __enter__(self) -> "TrackingSession":
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if self.parent is None or self._watchdog is None:
            return
        status = "FINISHED"
        if error is not None:
            status = "FAILED" if isinstance(error, Exception) else "KILLED"
            if isinstance(error, SlamsError):
                self.parent.set_tags({"slams.error": str(error)[:4000]})
        self._end(self.parent, status)
        self._watchdog.release()

    def _end(self, run: Run, status: str) -> None:
        assert self._watchdog is not None
        if run.finish(status):
            self._watchdog.forget(run)
        else:
            self._watchdog.hand_over(run, status)

    def _continue(self) -> Run | None:
        assert self._tracker is not None
        path = self._parent_path()
        if not storage.exists(path):
            return None
        entry = json.loads(storage.read_bytes(path))
        if entry["uri"] != self._tracker.uri:
            return None
        run = self._tracker.reopen(entry["run_id"])
        if run is not None:
            self._tracker.close_abandoned(run)
            run.set_tags({"slams.resumed": "true"})
        return run

    def _create(self) -> Run:
        assert self._tracker is not None
        group = Run(self._tracker.uri, self.group)
        run = self._tracker.start(self.name, {"slams.workspace": self.workspace}, group)
        run.log_params(self.params)
        if run.run_id is not None:
            entry = {"uri": self._tracker.uri, "run_id": run.run_id}
            storage.write_bytes(self._parent_path(), json.dumps(entry).encode())
        return run

    def _parent_path(self) -> str:
        return storage.join(self.workspace, _PARENTS, f"{self.key}.json")
