"""Independent pieces of work as Ray tasks, each of which may itself train and map shards."""

import logging
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import ray
from ray.exceptions import RayError
from ray.util.queue import Queue

from slams_ray.errors import SlamsError
from slams_ray.runtime import cluster
from slams_ray.runtime.relay import LineRelay, relayed

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

MAX_RETRIES = 3
"""Times a task starts again after its node was lost; it continues from the workspace."""


def run_side_by_side(
    works: Mapping[str, Callable[[], Result]], max_concurrent: int
) -> tuple[dict[str, Result], list[str]]:
    """Runs every work in a Ray task, at most `max_concurrent` at a time, wherever there is room.

    The tasks take no CPU of their own: they wait for the trainings and maps they start.

    Returns:
        label -> result of the works that ended well, and the labels of the others, whose errors
        have been logged.
    """
    cluster.connect()
    task = ray.remote(num_cpus=0, max_retries=MAX_RETRIES, scheduling_strategy="SPREAD")(_run)
    waiting: list[str] = list(works)
    running: dict[ray.ObjectRef, str] = {}
    results: dict[str, Result] = {}
    failed: list[str] = []
    with LineRelay() as relay:
        while waiting or running:
            while waiting and len(running) < max_concurrent:
                label = waiting.pop(0)
                running[task.remote(works[label], relay.queue, label)] = label
            (ready,), _ = ray.wait(list(running))
            label = running.pop(ready)
            try:
                results[label] = ray.get(ready)
            except RayError as error:
                # A task that raised carries our error; one whose node was lost too often does not.
                cause = getattr(error, "cause", None)
                said = cause if isinstance(cause, SlamsError) else error
                logger.error("%s failed: %s", label, said)
                failed.append(label)
    return results, failed


def _run(work: Callable[[], Any], queue: Queue, label: str) -> Any:
    with relayed(queue, label):
        return work()
