"""Scores of methods over seeds: mean, spread and paired differences."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev


@dataclass(frozen=True, kw_only=True)
class Score:
    """One number of a comparison.

    Attributes:
        method: name of a system, or of a variant of one.
        metric: seed_miou and so on; fractions.
    """

    method: str
    seed: int
    metric: str
    value: float


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Mean and sample standard deviation over seeds; the deviation of one seed is nan."""

    mean: float
    deviation: float
    num_seeds: int


def spread(values: Sequence[float]) -> Spread:
    """Raises statistics.StatisticsError for no values."""
    deviation = stdev(values) if len(values) > 1 else float("nan")
    return Spread(mean=fmean(values), deviation=deviation, num_seeds=len(values))


def by_method(scores: Iterable[Score], metric: str) -> dict[str, dict[int, float]]:
    """Method -> seed -> value of one metric, in order of appearance."""
    found: dict[str, dict[int, float]] = {}
    for score in scores:
        if score.metric == metric:
            found.setdefault(score.method, {})[score.seed] = score.value
    return found


def spreads(scores: Sequence[Score]) -> dict[str, dict[str, Spread]]:
    """Method -> metric -> spread over seeds, in order of appearance."""
    table: dict[str, dict[str, Spread]] = {}
    for metric in dict.fromkeys(score.metric for score in scores):
        for method, values in by_method(scores, metric).items():
            table.setdefault(method, {})[metric] = spread(list(values.values()))
    return table


def paired_differences(
    scores: Iterable[Score], metric: str, method: str, baseline: str
) -> Mapping[int, float]:
    """Seed -> value of the method minus that of the baseline, for seeds that have both."""
    found = by_method(scores, metric)
    ours, theirs = found.get(method, {}), found.get(baseline, {})
    return {seed: ours[seed] - theirs[seed] for seed in ours if seed in theirs}
