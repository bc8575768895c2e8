"""Trials of Ray Tune over given points: restored after a kill, failures kept beside results."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from ray import tune
from ray.util.queue import Queue

from slams_ray import storage
from slams_ray.runtime import cluster
from slams_ray.runtime.relay import LineRelay, relayed

logger = logging.getLogger(__name__)

_POINT, _RESULT, _LABEL = "point", "result", "label"
TRIAL_CPUS = 0.01
"""A trial waits for the tasks it starts; Tune asks for more than nothing."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One finished trial: its result, or why it has none."""

    point: Mapping[str, Any]
    result: Any = None
    error: str | None = None


def run_points(
    work: Callable[[Mapping[str, Any]], Any],
    points: Mapping[str, Mapping[str, Any]],
    storage_dir: str,
    name: str,
    max_concurrent: int,
) -> dict[str, Trial]:
    """Runs `work(point)` for every labelled point as a trial of Ray Tune.

    The same call after a kill keeps finished trials and runs errored ones again.

    Args:
        work: returns something JSON can hold.
        points: label -> plain values.

    Returns:
        label -> trial, in the order of the points.
    """
    cluster.connect()
    directory = storage.join(storage_dir, name)
    with LineRelay() as relay:
        trainable = tune.with_resources(partial(_trial, work, relay.queue), {"cpu": TRIAL_CPUS})
        if tune.Tuner.can_restore(directory):
            tuner = tune.Tuner.restore(directory, trainable=trainable, resume_errored=True)
        else:
            entries = [{_LABEL: label, **point} for label, point in points.items()]
            tuner = tune.Tuner(
                trainable,
                param_space={_POINT: tune.grid_search(entries)},
                tune_config=tune.TuneConfig(max_concurrent_trials=max_concurrent),
                run_config=tune.RunConfig(name=name, storage_path=storage_dir, verbose=0),
            )
        grid = tuner.fit()
    found: dict[str, Trial] = {}
    for result in grid:
        entry = dict((result.config or result.metrics["config"])[_POINT])
        label = entry.pop(_LABEL)
        error = None if result.error is None else str(result.error).strip().splitlines()[-1]
        value = None if error else result.metrics[_RESULT]
        if error:
            logger.error("%s failed: %s", label, error)
        found[label] = Trial(point=entry, result=value, error=error)
    return {label: found[label] for label in points if label in found}


def _trial(work: Callable[[Mapping[str, Any]], Any], queue: Queue, config: dict[str, Any]) -> None:
    point = dict(config[_POINT])
    with relayed(queue, point.pop(_LABEL)):
        tune.report({_RESULT: work(point)})
