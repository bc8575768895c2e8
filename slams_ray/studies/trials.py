"""Runs the pipelines of a study concurrently: one trial of Ray Tune per point of a grid."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from slams_ray import storage
from slams_ray.config import PipelineConfig
from slams_ray.runtime import cluster
from slams_ray.runtime.search import search
from slams_ray.runtime.search_space import SearchSpace
from slams_ray.runtime.trial_plan import SearchPlan, SearchTrial
from slams_ray.studies.comparison import Score

Point = Mapping[str, Any]
_IS_DONE = "is_done"
TRIAL_CPUS = 0.01
"""Close to 0, because a trial only waits for stages, which have CPUs of their own."""


def run_grid(
    work: Callable[[Point], Iterator[dict[str, float]]],
    grid: Mapping[str, Sequence[Any]],
    config: PipelineConfig,
    directory: str,
    label: Callable[[Point], str],
    max_concurrent: int | None,
) -> list[SearchTrial]:
    """Runs `work` for every point of a grid.

    Every point runs, also where an earlier command ran it: its stages keep what is finished and
    notice what changed.

    Args:
        work: yields one report of the scores of a point, method/metric -> value.
        directory: directory of the study's records; those of an earlier command are removed.
        label: returns the name of a point, which starts the log lines of its trial.
        max_concurrent: number of points at the same time; None means as many as the nodes or GPUs
            allow.
    """
    compute = config.compute
    limit = max_concurrent or cluster.num_trainings(compute.train_workers, compute.device)
    plan = SearchPlan(
        algorithm="grid",
        num_samples=1,
        metric=_IS_DONE,
        num_reports=1,
        feedback_delay=1,
        max_concurrent=limit,
        cpus_per_trial=TRIAL_CPUS,
        time_budget_seconds=None,
        seed=0,
    )
    if storage.list_names(directory):
        storage.remove_directory(directory)
    return search(partial(_reports, work), SearchSpace(grid), plan, directory, label)


def _reports(
    work: Callable[[Point], Iterator[dict[str, float]]], point: Point
) -> Iterator[dict[str, float]]:
    """Adds a metric to the reports, because Tune needs one and data without masks has no score."""
    for report in work(point):
        yield report | {_IS_DONE: 1.0}


def of_trial(config: PipelineConfig, seed: int) -> PipelineConfig:
    """Returns the settings of one trial: other trials take what one training leaves free."""
    return replace(config, seed=seed, compute=replace(config.compute, trainings_at_once=1))


def to_report(scores: Sequence[Score]) -> dict[str, float]:
    """Turns scores into the report of a trial: method/metric[/refinement] -> value."""
    return {f"{s.method}/{s.metric}/{s.refinement}".rstrip("/"): s.value for s in scores}


def to_scores(report: Mapping[str, float], seed: int) -> list[Score]:
    """Inverse of `to_report`."""
    scores = []
    for name, value in report.items():
        method, *rest = name.split("/")
        if rest:
            refinement = rest[1] if len(rest) > 1 else ""
            scores.append(
                Score(method=method, seed=seed, metric=rest[0], value=value, refinement=refinement)
            )
    return scores
