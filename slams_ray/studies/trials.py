"""Pipelines of a study side by side: one trial of Ray Tune for each point of a grid."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from slams_ray import storage
from slams_ray.artifacts import fingerprint, to_plain
from slams_ray.config import PipelineConfig
from slams_ray.runtime import cluster
from slams_ray.runtime.search import search
from slams_ray.runtime.search_space import SearchSpace
from slams_ray.runtime.trial_plan import SearchPlan, SearchTrial
from slams_ray.studies.comparison import Score

Point = Mapping[str, Any]
TRIAL_CPUS = 0.01
"""A trial waits for the trainings and maps it starts, which take CPUs of their own."""


def run_grid(
    work: Callable[[Point], Iterator[dict[str, float]]],
    grid: Mapping[str, Sequence[Any]],
    config: PipelineConfig,
    directory: str,
    label: Callable[[Point], str],
    metric: str,
    max_concurrent: int | None,
) -> list[SearchTrial]:
    """Runs `work` for every point of a grid; finished points are kept.

    Args:
        work: reports the scores of a point once, as method/metric -> value.
        directory: of the study's records.
        label: names a point before the lines that its trial logs.
        metric: one that every report holds.
        max_concurrent: points at the same time; None takes what the nodes or GPUs allow.
    """
    compute = config.compute
    limit = max_concurrent or cluster.num_trainings(compute.train_workers, compute.device)
    plan = SearchPlan(
        algorithm="grid",
        num_samples=1,
        metric=metric,
        num_reports=1,
        feedback_delay=1,
        max_concurrent=limit,
        cpus_per_trial=TRIAL_CPUS,
        time_budget_seconds=None,
        seed=0,
    )
    mark = fingerprint("grid", {"config": to_plain(config), "grid": dict(grid)}, {})
    return search(work, SearchSpace(grid), plan, storage.join(directory, mark), label)


def to_report(scores: Sequence[Score]) -> dict[str, float]:
    """Scores as a trial reports them: method/metric -> value."""
    return {f"{score.method}/{score.metric}": score.value for score in scores}


def to_scores(report: Mapping[str, float], seed: int) -> list[Score]:
    """Inverse of `to_report`."""
    names = {name: name.split("/") for name in report if "/" in name}
    return [
        Score(method=method, seed=seed, metric=metric, value=report[name])
        for name, (method, metric) in names.items()
    ]
