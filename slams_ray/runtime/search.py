"""Trials of Ray Tune by grid, chance or Optuna; bad ones stop early, killed searches continue."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import optuna
from ray import tune
from ray.tune.execution import class_cache
from ray.tune.logger import JsonLoggerCallback
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search import BasicVariantGenerator
from ray.tune.search.optuna import OptunaSearch
from ray.util.queue import Queue

from slams_ray import storage
from slams_ray.runtime import cluster
from slams_ray.runtime.relay import LineRelay, relayed
from slams_ray.runtime.shards import Pool

logger = logging.getLogger(__name__)

Space = Mapping[str, Sequence[Any]]
Report = Mapping[str, float]
TrialWork = Callable[[Mapping[str, Any]], Iterator[Report]]
"""A point of the space -> one report per slice."""

_HISTORY = "history"
_CREDENTIALS = {
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SECURITY_TOKEN",
    "AWS_SESSION_TOKEN",
}


@dataclass(frozen=True, kw_only=True)
class SearchPlan:
    """How to search.

    Attributes:
        algorithm: optuna, random or grid.
        metric: the report's number to maximise.
        num_reports: reports of a trial that is not stopped.
        cpus_per_trial: of the trial's own process; one that only waits for the tasks it starts
            needs next to none, but Tune asks for some.
        pool: called when Ray is connected, tells which share of a GPU a trial takes and how many
            trials there may be; None, or giving None, takes no GPU.
    """

    algorithm: str
    num_samples: int
    metric: str
    num_reports: int
    max_concurrent: int | None
    cpus_per_trial: float
    time_budget_seconds: float | None
    seed: int
    pool: Callable[[], Pool | None] | None = None


@dataclass(frozen=True, kw_only=True)
class SearchTrial:
    """One trial.

    Attributes:
        history: its reports in order; fewer than planned where it was stopped.
        error: why it failed, None where it did not.
    """

    trial_id: str
    point: dict[str, Any]
    history: list[dict[str, float]]
    error: str | None = None


def search(
    work: TrialWork,
    space: Space,
    plan: SearchPlan,
    storage_dir: str,
    name: str,
    label: Callable[[Mapping[str, Any]], str],
) -> list[SearchTrial]:
    """Runs the trials; the same call after a kill keeps finished ones and repeats failed ones.

    Ctrl-C ends the search with the trials there are.

    Args:
        label: names a point before the lines its trial logs.
    """
    cluster.connect()
    with LineRelay() as relay:
        trainable = partial(_trial, work, relay.queue, label)
        trials = _run(trainable, space, plan, storage_dir, name)
    for trial in trials:
        if trial.error is not None:
            logger.error("%s failed: %s", label(trial.point), trial.error)
    return trials


def _run(
    trial: Callable[..., None], space: Space, plan: SearchPlan, storage_dir: str, name: str
) -> list[SearchTrial]:
    # Tune would hand them to trials by a runtime environment, and Ray writes those into its logs.
    # Trials have what their nodes have, as all other workers.
    class_cache.ENV_VARS_TO_PROPAGATE.difference_update(_CREDENTIALS)
    directory = storage.join(storage_dir, name)
    resources = {"cpu": plan.cpus_per_trial}
    limit = max(1, int(cluster.num_cpus() / plan.cpus_per_trial))
    if (actors := plan.pool() if plan.pool is not None else None) is not None:
        resources["gpu"] = actors.num_gpus
        limit = min(limit, actors.num_actors)
    trainable = tune.with_resources(trial, resources)
    if tune.Tuner.can_restore(directory):
        tuner = tune.Tuner.restore(directory, trainable=trainable, resume_errored=True)
    else:
        tuner = tune.Tuner(
            trainable,
            param_space=_param_space(space, plan.algorithm),
            tune_config=_tune_config(plan, plan.max_concurrent or limit),
            run_config=tune.RunConfig(
                name=name,
                storage_path=storage_dir,
                verbose=0,
                callbacks=[JsonLoggerCallback()],
            ),
        )
    return [_describe(result) for result in tuner.fit()]


def _param_space(space: Space, algorithm: str) -> dict[str, Any]:
    # Plain lists: Tune's state file and MLflow take Python numbers only.
    choose = tune.grid_search if algorithm == "grid" else tune.choice
    return {name: choose(list(values)) for name, values in space.items()}


def _tune_config(plan: SearchPlan, limit: int) -> tune.TuneConfig:
    scheduler = ASHAScheduler(
        time_attr="training_iteration",
        max_t=plan.num_reports,
        grace_period=1,
        reduction_factor=2,
    )
    if plan.algorithm == "optuna":
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        algorithm: dict[str, Any] = {
            "search_alg": OptunaSearch(seed=plan.seed),
            "max_concurrent_trials": limit,
        }
    else:
        generator = BasicVariantGenerator(random_state=plan.seed, max_concurrent=limit)
        algorithm = {"search_alg": generator}
    return tune.TuneConfig(
        metric=plan.metric,
        mode="max",
        num_samples=1 if plan.algorithm == "grid" else plan.num_samples,
        scheduler=scheduler,
        time_budget_s=plan.time_budget_seconds,
        reuse_actors=True,
        trial_dirname_creator=lambda trial: trial.trial_id,
        **algorithm,
    )


def _describe(result: Any) -> SearchTrial:
    metrics = result.metrics or {}
    error = None
    if result.error is not None:
        error = str(result.error).strip().splitlines()[-1]
    return SearchTrial(
        trial_id=str(metrics.get("trial_id") or result.path.rsplit("/", 1)[-1]),
        point=dict(result.config or {}),
        history=list(metrics.get(_HISTORY, [])),
        error=error,
    )


def _trial(
    work: TrialWork,
    queue: Queue,
    label: Callable[[Mapping[str, Any]], str],
    config: Mapping[str, Any],
) -> None:
    history: list[dict[str, float]] = []
    with relayed(queue, label(config)):
        for report in work(config):
            history.append(dict(report))
            # All reports in each: the last one alone then tells the whole trial.
            tune.report({**report, _HISTORY: list(history)})
