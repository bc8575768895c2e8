"""Scores over random seeds: mean, standard deviation and paired differences."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev


@dataclass(frozen=True, kw_only=True)
class Score:
    """One score of a study.

    Attributes:
        method: name of a system, or of a variant of one.
        refinement: refinements between maps and labels, such as walk+crf. It is empty for what does
            not depend on them.
        seed: random seed.
        metric: name of the metric, such as seed_miou.
        value: value of the metric; scores are fractions.
    """

    method: str
    seed: int
    metric: str
    value: float
    refinement: str = ""

    @property
    def column(self) -> str:
        """Metric and refinement, which together are a column of a table."""
        return f"{self.metric} {self.refinement}".rstrip()


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Mean and sample standard deviation over random seeds; nan deviation for a single seed."""

    mean: float
    deviation: float
    num_seeds: int


def spread(values: Sequence[float]) -> Spread:
    """Returns the spread of values.

    Raises:
        statistics.StatisticsError: there are no values.
    """
    deviation = stdev(values) if len(values) > 1 else float("nan")
    return Spread(mean=fmean(values), deviation=deviation, num_seeds=len(values))


def by_method(scores: Iterable[Score], column: str) -> dict[str, dict[int, float]]:
    """Returns method -> random seed -> value of one column, in order of appearance."""
    found: dict[str, dict[int, float]] = {}
    for score in scores:
        if score.column == column:
            found.setdefault(score.method, {})[score.seed] = score.value
    return found


def spreads(scores: Sequence[Score]) -> dict[str, dict[str, Spread]]:
    """Returns method -> column -> spread over random seeds, in order of appearance."""
    table: dict[str, dict[str, Spread]] = {}
    for column in dict.fromkeys(score.column for score in scores):
        for method, values in by_method(scores, column).items():
            table.setdefault(method, {})[column] = spread(list(values.values()))
    return table


def paired_differences(
    scores: Iterable[Score], column: str, method: str, baseline: str
) -> Mapping[int, float]:
    """Returns random seed -> value of the method minus value of the baseline, where both exist."""
    found = by_method(scores, column)
    ours, theirs = found.get(method, {}), found.get(baseline, {})
    return {seed: ours[seed] - theirs[seed] for seed in ours if seed in theirs}
