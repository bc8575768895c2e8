"""Finite search spaces with conditions, and the choice of the next point."""

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
"""Number of draws of a sampler before the first untried point of the space is used."""


def always(_name: str, _chosen: Mapping[str, Any]) -> bool:
    """Condition of a space in which every parameter is always used."""
    return True


@dataclass(frozen=True)
class SearchSpace:
    """Lists of values to choose from.

    Attributes:
        values: parameter -> its values, hashable.
        is_used: (parameter, chosen values of earlier parameters) -> whether the parameter has an
            effect. A point contains only such parameters, so no two points have the same effect.
    """

    values: Mapping[str, Sequence[Any]]
    is_used: Callable[[str, Mapping[str, Any]], bool] = always

    def points(self) -> Iterator[Point]:
        """Yields every point once; the last parameter changes fastest."""
        return self._completions({}, tuple(self.values))

    def choose(self, pick: Callable[[str, list[Any]], Any]) -> Point:
        """Chooses one point.

        Args:
            pick: (parameter, its distinct values) -> the chosen value.
        """
        point: Point = {}
        for name in self.values:
            if self.is_used(name, point):
                point[name] = pick(name, self.distinct(name))
        return point

    def distinct(self, name: str) -> list[Any]:
        """Returns the values of a parameter without repetitions."""
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
    """Result of a trial.

    Attributes:
        values: objective after each report; empty if the trial failed.
        is_complete: False if the trial was stopped early.
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
    """Draws the point of a trial, always the same for the same arguments.

    Args:
        algorithm: grid, random, or optuna (its tree-structured Parzen estimator, TPE).
        seed: random seed of the search.
        number: number of the trial, from 0.
        observations: results of earlier trials, in order; TPE learns from them.
        taken: points that must not be drawn again.

    Returns:
        the point; None if all points are taken.
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
    # One random seed per trial, so that a continued search draws the same points.
    own_seed = random.Random(f"{seed}/{number}").getrandbits(32)
    samplers = {"random": optuna.samplers.RandomSampler, "optuna": optuna.samplers.TPESampler}
    study = optuna.create_study(direction="maximize", sampler=samplers[algorithm](seed=own_seed))
    for observation in observations:
        study.add_trial(_frozen(space, observation))
    return study


def _frozen(space: SearchSpace, observation: Observation) -> FrozenTrial:
    """Converts an observation to an Optuna trial; TPE ranks stopped trials behind complete ones."""
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
