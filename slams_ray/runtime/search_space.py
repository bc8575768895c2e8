"""Finite search spaces with conditions, and how the next point is drawn from one."""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

Point = dict[str, Any]

MAX_DRAWS = 100
"""Draws of a sampler before the first untried point of the space is taken."""


def always(_name: str, _chosen: Mapping[str, Any]) -> bool:
    """Every parameter is used whatever the others are."""
    return True


@dataclass(frozen=True)
class SearchSpace:
    """Lists of values to choose from.

    Attributes:
        values: parameter -> its values, hashable.
        is_used: (parameter, those chosen before it) -> whether it has an effect. A point holds only
            parameters that are used, so no two points have the same effect.
    """

    values: Mapping[str, Sequence[Any]]
    is_used: Callable[[str, Mapping[str, Any]], bool] = always

    def points(self) -> Iterator[Point]:
        """Every point once; the last parameter changes fastest."""
        return self._completions({}, tuple(self.values))

    def choose(self, pick: Callable[[str, list[Any]], Any]) -> Point:
        """One point.

        Args:
            pick: (parameter, its distinct values) -> one of them.
        """
        point: Point = {}
        for name in self.values:
            if self.is_used(name, point):
                point[name] = pick(name, self.distinct(name))
        return point

    def distinct(self, name: str) -> list[Any]:
        """The values of a parameter without repetitions."""
        return list(dict.fromkeys(self.values[name]))

    def _completions(self, point: Point, names: tuple[str, ...]) -> Iterator[Point]:
        if not names:
            yield point
        elif not self.is_used(names[0], point):
            yield from self._completions(point, names[1:])
        else:
            for value in self.distinct(names[0]):
                yield from self._completions({**point, names[0]: value}, names[1:])


@dataclass(frozen=True, kw_only=True)
class Observation:
    """What a trial has shown.

    Attributes:
        values: the objective after each report; empty where the trial failed.
        is_complete: False where the trial was stopped early.
    """

    point: Point
    values: Sequence[float]
    is_complete: bool


def draw_point(
    space: SearchSpace,
    algorithm: str,
    seed: int,
    number: int,
    observations: Sequence[Observation],
    taken: Sequence[Point],
) -> Point | None:
    """The point of a trial, the same for the same arguments; None when all points are taken.

    Args:
        algorithm: grid, random, or optuna for its tree-structured Parzen estimator (TPE).
        number: of the trial, from 0.
        observations: of earlier trials, in order; TPE learns from them.
        taken: points that are not drawn again.
    """
    if algorithm == "grid":
        return next(islice(space.points(), number, None), None)
    study = _study(space, algorithm, seed, number, observations)
    for _ in range(MAX_DRAWS):
        trial = study.ask()
        point = space.choose(trial.suggest_categorical)
        if point not in taken:
            return point
    return next((point for point in space.points() if point not in taken), None)


def _study(
    space: SearchSpace,
    algorithm: str,
    seed: int,
    number: int,
    observations: Sequence[Observation],
) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    # A seed per trial: a search that continues draws what one that was never stopped draws.
    own_seed = random.Random(f"{seed}/{number}").getrandbits(32)
    samplers = {"random": optuna.samplers.RandomSampler, "optuna": optuna.samplers.TPESampler}
    study = optuna.create_study(direction="maximize", sampler=samplers[algorithm](seed=own_seed))
    for observation in observations:
        study.add_trial(_frozen(space, observation))
    return study


def _frozen(space: SearchSpace, observation: Observation) -> FrozenTrial:
    """An observation as Optuna knows it; it ranks a stopped trial behind all complete ones."""
    state, value = TrialState.PRUNED, None
    if not observation.values:
        state = TrialState.FAIL
    elif observation.is_complete:
        state, value = TrialState.COMPLETE, observation.values[-1]
    return create_trial(
        state=state,
        value=value,
        params=observation.point,
        distributions={
            name: CategoricalDistribution(space.distinct(name)) for name in observation.point
        },
        intermediate_values=dict(enumerate(observation.values, start=1)),
    )
