"""Plan of a search: which trial runs next, with which point, and when a trial stops early.

Trials are numbered. The point of trial n and the scores below which it stops depend only on the
random seed and on the results of trials 0 to n - feedback_delay. So they do not depend on how many
trials run at once, on which of them end first, on a kill, or on the number of trials.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import takewhile
from math import isfinite

import numpy as np

from slams_ray import storage
from slams_ray.errors import ArtifactError
from slams_ray.runtime.pools import Pool
from slams_ray.runtime.search_space import Observation, Point, SearchSpace, draw_point

Cutoffs = list[float | None]
"""Score that a trial must reach after each report to continue; None sets no limit."""


@dataclass(frozen=True, kw_only=True)
class SearchPlan:
    """Settings of a search.

    Attributes:
        algorithm: optuna, random or grid.
        num_samples: number of trials; grid ignores it and tries every point.
        metric: entry of the reports to maximise.
        num_reports: number of reports of a complete trial.
        feedback_delay: only trials 0 to n - feedback_delay influence trial n, so at most this
            number of trials run at once. Grid and random with one report need no results and do
            not wait.
        max_concurrent: largest number of concurrent trials; None uses the whole cluster. It changes
            no result.
        cpus_per_trial: CPUs of the trial's own process; Tune requires more than 0 even if the trial
            only waits for its tasks.
        time_budget_seconds: time after which the search ends; None sets no limit.
        seed: random seed of the points.
        pool: called when Ray is connected; returns the GPU share of a trial and the number of
            trials. None, or a function that returns None, uses no GPU.
    """

    algorithm: str
    num_samples: int
    metric: str
    num_reports: int
    feedback_delay: int
    max_concurrent: int | None
    cpus_per_trial: float
    time_budget_seconds: float | None
    seed: int
    pool: Callable[[], Pool | None] | None = None


@dataclass(frozen=True, kw_only=True)
class SearchTrial:
    """One trial.

    Attributes:
        trial_id: its number with five digits.
        point: its values of the search space.
        history: its reports in order; fewer than planned if it was stopped.
        error: reason of its failure; None if it did not fail.
    """

    trial_id: str
    point: Point
    history: list[dict[str, float]]
    error: str | None = None


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """A trial to run."""

    number: int
    point: Point
    cutoffs: Cutoffs


class TrialRecords:
    """Records of finished trials, one JSON file each.

    Args:
        directory: directory of one search; the settings that its trials depend on must not change.
    """

    def __init__(self, directory: str) -> None:
        self.directory = directory

    def write(self, number: int, trial: SearchTrial) -> None:
        """Writes the record of a finished trial."""
        path = storage.join(self.directory, f"{trial_id(number)}.json")
        storage.write_bytes(path, json.dumps(asdict(trial)).encode())

    def read(self) -> dict[int, SearchTrial]:
        """Reads all records: number -> finished trial.

        Raises:
            ArtifactError: a file is not a record.
        """
        names = sorted(n for n in storage.list_names(self.directory) if n.endswith(".json"))
        return {int(name.removesuffix(".json")): self._read(name) for name in names}

    def _read(self, name: str) -> SearchTrial:
        path = storage.join(self.directory, name)
        try:
            return SearchTrial(**json.loads(storage.read_bytes(path)))
        except (ValueError, TypeError) as error:
            raise ArtifactError(
                f"{path} is not a record of a trial ({error}): remove it and run the command again"
            ) from error


class TrialPlan:
    """Proposes trials in the order of their numbers and takes their results.

    Args:
        finished: earlier trials by number.
    """

    def __init__(
        self, space: SearchSpace, plan: SearchPlan, finished: Mapping[int, SearchTrial]
    ) -> None:
        self.space = space
        self.plan = plan
        self.results = dict(finished)
        self.failed: set[int] = set()
        self.points: list[Point] = []
        is_grid = plan.algorithm == "grid"
        self.num_trials = sum(1 for _ in space.points()) if is_grid else plan.num_samples
        self._skip_finished()

    def propose(self) -> Proposal | None:
        """Returns the next trial; None while it waits for results or if none is left
        (`is_done`)."""
        number = len(self.points)
        known = range(max(0, number - self.plan.feedback_delay + 1))
        if self.is_done or (self._learns() and not self._are_settled(known)):
            return None
        earlier = [self.results[n] for n in known if n in self.results]
        point = self._draw(number, earlier)
        if point is None:
            self.num_trials = number
            return None
        self.points.append(point)
        self._skip_finished()
        return Proposal(number=number, point=point, cutoffs=self._cutoffs(earlier))

    @property
    def is_done(self) -> bool:
        """Whether all trials have been proposed."""
        return len(self.points) >= self.num_trials

    def settle(self, number: int, history: list[dict[str, float]]) -> SearchTrial:
        """Stores the reports of a proposed trial that has finished."""
        self.results[number] = SearchTrial(
            trial_id=trial_id(number), point=self.points[number], history=history
        )
        return self.results[number]

    def fail(self, number: int) -> None:
        """Records that a proposed trial failed, so that later trials do not wait for it."""
        self.failed.add(number)

    def finished(self) -> list[SearchTrial]:
        """Returns the finished trials among the first `num_trials`, in order."""
        return [self.results[n] for n in range(self.num_trials) if n in self.results]

    def _skip_finished(self) -> None:
        while not self.is_done and (known := self.results.get(len(self.points))) is not None:
            self.points.append(known.point)

    def _are_settled(self, numbers: range) -> bool:
        return all(n in self.results or n in self.failed for n in numbers)

    def _learns(self) -> bool:
        return self.plan.algorithm == "optuna" or self.plan.num_reports > 1

    def _draw(self, number: int, earlier: Sequence[SearchTrial]) -> Point | None:
        later = [trial.point for n, trial in self.results.items() if n > number]
        return draw_point(
            self.space,
            self.plan.algorithm,
            self.plan.seed,
            number,
            [self._observation(trial) for trial in earlier],
            [*self.points, *later],
        )

    def _observation(self, trial: SearchTrial) -> Observation:
        values = self._values(trial)
        return Observation(
            point=trial.point,
            values=list(takewhile(isfinite, values)),
            is_complete=len(values) == self.plan.num_reports and all(map(isfinite, values)),
        )

    def _values(self, trial: SearchTrial) -> list[float]:
        return [report[self.plan.metric] for report in trial.history]

    def _cutoffs(self, earlier: Sequence[SearchTrial]) -> Cutoffs:
        return halving_cutoffs([self._values(t) for t in earlier], self.plan.num_reports)


def halving_cutoffs(values: Sequence[Sequence[float]], num_reports: int) -> Cutoffs:
    """Successive halving: the cutoff after reports 1, 2, 4, ... is the median of earlier trials.

    Args:
        values: metric of each earlier trial after each of its reports.
        num_reports: number of reports of a complete trial.
    """
    cutoffs: Cutoffs = [None] * num_reports
    for rung in _rungs(num_reports):
        reached = [v[rung - 1] for v in values if len(v) >= rung and isfinite(v[rung - 1])]
        if reached:
            cutoffs[rung - 1] = float(np.median(reached))
    return cutoffs


def _rungs(num_reports: int) -> Iterator[int]:
    rung = 1
    while rung < num_reports:
        yield rung
        rung *= 2


def is_stopped(cutoffs: Cutoffs, num_reports: int, value: float) -> bool:
    """Whether a trial stops after `num_reports` reports, the last of which has this value."""
    cutoff = cutoffs[num_reports - 1] if num_reports <= len(cutoffs) else None
    return cutoff is not None and value < cutoff


def trial_id(number: int) -> str:
    """Name of a trial in records and figures; names sort as numbers do."""
    return f"{number:05d}"
