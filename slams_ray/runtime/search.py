"""Search by trials of Ray Tune, from a grid, random points or Optuna.

Tune runs the trials and shares the cluster among them. `TrialPlan` proposes the trials and decides
when one stops. Finished trials are read from records of this package, so that a search can be
continued and extended.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from functools import partial
from typing import Any

from ray import tune
from ray.tune.execution import class_cache
from ray.tune.logger import JsonLoggerCallback
from ray.tune.search import Searcher
from ray.util.queue import Queue

from slams_ray import storage
from slams_ray.runtime import cluster
from slams_ray.runtime.interrupts import handler_kept
from slams_ray.runtime.relay import LineRelay, relayed
from slams_ray.runtime.search_space import SearchSpace
from slams_ray.runtime.trial_plan import (
    SearchPlan,
    SearchTrial,
    TrialPlan,
    TrialRecords,
    is_stopped,
    trial_id,
)

logger = logging.getLogger(__name__)

TrialWork = Callable[[Mapping[str, Any]], Iterator[Mapping[str, float]]]
"""A point of the space -> one report per slice."""
Label = Callable[[Mapping[str, Any]], str]

_HISTORY, _FINISHED = "history", "is_finished"
_CREDENTIALS = {
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SECURITY_TOKEN",
    "AWS_SESSION_TOKEN",
}


def search(
    work: TrialWork, space: SearchSpace, plan: SearchPlan, directory: str, label: Label
) -> list[SearchTrial]:
    """Runs the trials. The same call after a kill keeps finished trials and repeats failed ones.

    A larger `num_samples` extends the search: only the additional trials run. A smaller one returns
    the first trials. Ctrl-C ends the search and keeps the trials that are finished.

    Args:
        directory: directory of the records; except for `num_samples`, everything that trials depend
            on must be the same in every call.
        label: names a point in the log lines of its trial.

    Returns:
        the trials in the order of their numbers.
    """
    trials = TrialPlan(space, plan, TrialRecords(directory).read())
    if trials.is_done:
        return trials.finished()
    cluster.connect()
    with LineRelay() as relay:
        found = _run(work, relay.queue, label, trials, plan, directory)
    for trial in found:
        if trial.error is not None:
            logger.error("%s failed: %s", label(trial.point), trial.error)
    return found


def _run(
    work: TrialWork, queue: Queue, label: Label, trials: TrialPlan, plan: SearchPlan, directory: str
) -> list[SearchTrial]:
    """Runs the missing trials in one experiment of Tune, and records those that finish."""
    # Tune would pass credentials to trials in a runtime environment, which Ray writes into its
    # logs. Like all workers, trials get the credentials of their nodes.
    class_cache.ENV_VARS_TO_PROPAGATE.difference_update(_CREDENTIALS)
    resources, limit = _share(plan)
    experiments = storage.join(directory, "tune")
    proposer = _Proposer(trials, TrialRecords(directory), plan.max_concurrent or limit)
    tuner = tune.Tuner(
        tune.with_resources(partial(_trial, work, queue, label, plan.metric), resources),
        tune_config=tune.TuneConfig(
            metric=plan.metric,
            mode="max",
            num_samples=-1,  # until the plan has no more trials
            search_alg=proposer,
            time_budget_s=plan.time_budget_seconds,
            reuse_actors=True,
            trial_dirname_creator=lambda trial: trial_id(trial.config["number"]),
        ),
        run_config=tune.RunConfig(
            name=f"{len(storage.list_names(experiments)):03d}",
            storage_path=experiments,
            verbose=0,
            callbacks=[JsonLoggerCallback()],
        ),
    )
    with handler_kept():
        found = [_describe(result) for result in tuner.fit() if result.config]
    settled = {trial.trial_id: trial for trial in trials.finished()}
    # Trials that Ctrl-C or the time budget interrupted are returned, but not recorded.
    cut_off = {trial.trial_id: trial for trial in found if trial.trial_id not in settled}
    return sorted([*settled.values(), *cut_off.values()], key=lambda trial: trial.trial_id)


def _share(plan: SearchPlan) -> tuple[dict[str, float], int]:
    """Returns the resources of one trial, and the number of trials that the cluster can run."""
    resources = {"cpu": plan.cpus_per_trial}
    limit = max(1, int(cluster.num_cpus() / plan.cpus_per_trial))
    if (actors := plan.pool() if plan.pool is not None else None) is not None:
        resources["gpu"] = actors.num_gpus
        limit = min(limit, actors.num_actors)
    return resources, limit


class _Proposer(Searcher):  # type: ignore[misc]
    """Proposes the trials of a plan to Tune, and records those that finish.

    Args:
        limit: largest number of concurrent trials.
    """

    def __init__(self, trials: TrialPlan, records: TrialRecords, limit: int) -> None:
        super().__init__(metric=trials.plan.metric, mode="max")
        self.trials = trials
        self.records = records
        self.limit = limit
        self.running: dict[str, int] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        if len(self.running) >= self.limit:
            return None
        proposal = self.trials.propose()
        if proposal is None:
            return self.FINISHED if self.trials.is_done else None
        self.running[trial_id] = proposal.number
        return asdict(proposal)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        number = self.running.pop(trial_id)
        if error:
            self.trials.fail(number)
        elif result is not None and result.get(_FINISHED):
            self.records.write(number, self.trials.settle(number, result[_HISTORY]))

    def save(self, checkpoint_path: str) -> None:
        """Does nothing: a search continues from its records alone."""

    def restore(self, checkpoint_path: str) -> None:
        """Does nothing, because nothing is saved."""


def _describe(result: Any) -> SearchTrial:
    return SearchTrial(
        trial_id=trial_id(result.config["number"]),
        point=dict(result.config["point"]),
        history=list((result.metrics or {}).get(_HISTORY, [])),
        error=None if result.error is None else str(result.error).strip().splitlines()[-1],
    )


def _trial(
    work: TrialWork, queue: Queue, label: Label, metric: str, proposal: Mapping[str, Any]
) -> None:
    history: list[dict[str, float]] = []
    with relayed(queue, label(proposal["point"])):
        for report in work(proposal["point"]):
            history.append(dict(report))
            # Each report contains all earlier ones: Tune keeps only the last.
            tune.report({**report, _HISTORY: list(history)})
            if is_stopped(proposal["cutoffs"], len(history), report[metric]):
                break
        tune.report({**history[-1], _HISTORY: history, _FINISHED: True})
