"""Runs trainings that need nothing of each other at the same time."""

import logging
from collections.abc import Sequence

from slams_ray.config import ComputeConfig
from slams_ray.runtime import cluster
from slams_ray.runtime.interrupts import start, wait_for
from slams_ray.stages.pipeline_run import PipelineRun
from slams_ray.stages.stage import Result
from slams_ray.stages.steps import Step, training_of

logger = logging.getLogger(__name__)


def run_group(group: Sequence[Step], run: PipelineRun) -> None:
    """Runs a group of steps, and adds their results in the order of the group.

    If a training fails, those that have started are finished and kept, and no other starts.
    """
    found: dict[str, Result] = {}
    if len(group) > 1:
        unfinished = [
            step for step in group if not training_of(step[0], run).is_finished(run.context)
        ]
        # Where nothing is to be done, Ray need not start.
        num_places = _num_places(run.context.compute) if len(unfinished) > 1 else 1
        if num_places > 1:
            found = _Together(unfinished, run).run(num_places)
    for name, work in group:
        run.results[name] = found[name] if name in found else work(run)


def _num_places(compute: ComputeConfig) -> int:
    # Not left to the threads: two of them would start Ray twice, and Ray would not end on SIGTERM.
    cluster.connect()
    return compute.trainings_at_once or cluster.num_trainings(
        compute.train_workers, compute.device, compute.train_threads
    )


class _Together:
    """Runs steps in threads of this process, which wait for their trainings on the cluster."""

    def __init__(self, steps: Sequence[Step], run: PipelineRun) -> None:
        self._run = run
        self._waiting = iter(steps)
        self._results: dict[str, Result] = {}
        self._failures: list[Exception] = []

    def run(self, num_places: int) -> dict[str, Result]:
        """Returns name -> result of all steps.

        Raises:
            Exception: that of the first step that failed.
        """
        wait_for([start(self._work) for _ in range(num_places)])
        if self._failures:
            raise self._failures[0]
        return self._results

    def _work(self) -> None:
        for name, work in self._waiting:
            if self._failures:
                return
            try:
                self._results[name] = work(self._run)
            except Exception as error:
                self._failures.append(error)
                logger.error("%-18s failed: %s", name, error)
