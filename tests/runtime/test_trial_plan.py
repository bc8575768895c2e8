"""What a search tries and stops, without Ray: trials that end in any order."""

import random
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from slams_ray.errors import ArtifactError
from slams_ray.runtime.search_space import SearchSpace
from slams_ray.runtime.trial_plan import (
    Proposal,
    SearchPlan,
    SearchTrial,
    TrialPlan,
    TrialRecords,
    halving_cutoffs,
    is_stopped,
    trial_id,
)

NUM_REPORTS = 4
SPACE = SearchSpace({"x": tuple(range(12)), "y": (0.0, 1.0, 2.0, 3.0)})


def plan(**changes: Any) -> SearchPlan:
    settings: dict[str, Any] = {
        "algorithm": "optuna",
        "num_samples": 24,
        "metric": "miou",
        "num_reports": NUM_REPORTS,
        "feedback_delay": 3,
        "max_concurrent": None,
        "cpus_per_trial": 1.0,
        "time_budget_seconds": None,
        "seed": 5,
    }
    return SearchPlan(**settings | changes)


def score(point: Mapping[str, Any]) -> float:
    return float(point["y"] - abs(point["x"] - 7))


def history(proposal: Proposal) -> list[dict[str, float]]:
    """The reports of a trial, which stops itself."""
    reports: list[dict[str, float]] = []
    for number in range(1, NUM_REPORTS + 1):
        reports.append({"miou": score(proposal.point) + number / 100})
        if is_stopped(proposal.cutoffs, number, reports[-1]["miou"]):
            break
    return reports


def simulate(
    settings: SearchPlan,
    num_concurrent: int,
    order: int = 0,
    earlier: Mapping[int, SearchTrial] | None = None,
    num_ended: int | None = None,
    space: SearchSpace = SPACE,
) -> tuple[dict[int, SearchTrial], list[int]]:
    """Runs so many trials at a time, which end in a random order.

    Args:
        num_ended: trials after which the search is killed.

    Returns:
        the records, and the numbers of the trials that have run.
    """
    trials = TrialPlan(space, settings, earlier or {})
    rng = random.Random(order)
    running: list[Proposal] = []
    ran: list[int] = []
    while num_ended is None or len(ran) < num_ended:
        while len(running) < num_concurrent and (proposal := trials.propose()) is not None:
            running.append(proposal)
        if not running:
            break
        ended = running.pop(rng.randrange(len(running)))
        trials.settle(ended.number, history(ended))
        ran.append(ended.number)
    return dict(sorted(trials.results.items())), ran


@pytest.mark.parametrize("algorithm", ["optuna", "random", "grid"])
def test_concurrency_and_the_order_of_ends_change_nothing(algorithm: str) -> None:
    expected, _ = simulate(plan(algorithm=algorithm), 1)
    assert any(len(trial.history) < NUM_REPORTS for trial in expected.values())
    for num_concurrent, order in [(3, 1), (3, 2), (8, 3)]:
        assert simulate(plan(algorithm=algorithm), num_concurrent, order)[0] == expected


def test_more_trials_extend_a_search_and_fewer_are_its_beginning() -> None:
    first, _ = simulate(plan(num_samples=10), 2, order=1)
    extended, ran = simulate(plan(num_samples=24), 2, order=2, earlier=first)
    assert sorted(ran) == list(range(10, 24))
    assert extended == simulate(plan(num_samples=24), 2)[0]
    again = TrialPlan(SPACE, plan(num_samples=10), extended)
    assert again.is_done
    assert again.finished() == list(first.values())


def test_a_killed_search_goes_on_as_if_it_had_not_been_killed() -> None:
    killed, _ = simulate(plan(), 3, order=4, num_ended=9)
    resumed, ran = simulate(plan(), 3, order=5, earlier=killed)
    assert not set(ran) & set(killed)
    assert resumed == simulate(plan(), 1)[0]


def test_a_failed_trial_holds_up_no_other_and_is_tried_again_by_the_next_run() -> None:
    trials = TrialPlan(SPACE, plan(num_samples=6, feedback_delay=1), {})
    while (proposal := trials.propose()) is not None:
        if proposal.number == 2:
            trials.fail(2)
        else:
            trials.settle(proposal.number, history(proposal))
    assert [trial.trial_id for trial in trials.finished()] == [
        trial_id(number) for number in (0, 1, 3, 4, 5)
    ]
    _, ran = simulate(plan(num_samples=6, feedback_delay=1), 1, earlier=trials.results)
    assert ran == [2]


def test_optuna_learns_from_finished_trials() -> None:
    space = SearchSpace({**SPACE.values, "z": tuple(range(12))})
    means = {}
    for algorithm in ("optuna", "random"):
        found, _ = simulate(plan(algorithm=algorithm, num_samples=60), 3, space=space)
        means[algorithm] = fmean(score(trial.point) for n, trial in found.items() if n >= 30)
    assert means["optuna"] > means["random"] + 0.5


@pytest.mark.parametrize("algorithm", ["optuna", "random", "grid"])
def test_no_point_is_tried_twice_and_an_exhausted_space_ends_the_search(algorithm: str) -> None:
    space = SearchSpace({"x": (7, 6, 7), "y": (0.0, 1.0)})
    found, _ = simulate(plan(algorithm=algorithm), 2, space=space)
    points = [tuple(trial.point.items()) for trial in found.values()]
    assert len(points) == len(set(points)) == 4


def test_cutoffs_are_medians_after_one_two_and_four_reports() -> None:
    values = [[1.0, 2.0, 9.0, 4.0], [3.0, 6.0, 9.0, 9.0], [0.5]]
    assert halving_cutoffs(values, 6) == [1.0, 4.0, None, 6.5, None, None]
    assert halving_cutoffs([], 4) == [None] * 4
    assert is_stopped([1.0, None], 1, 0.9)
    assert not is_stopped([1.0, None], 1, 1.0)
    assert not is_stopped([1.0, None], 2, 0.0)


def test_records_are_read_as_they_were_written(tmp_path: Path) -> None:
    trial = SearchTrial(trial_id=trial_id(3), point={"x": 1, "y": 0.5}, history=[{"miou": 0.25}])
    records = TrialRecords(str(tmp_path))
    assert records.read() == {}
    records.write(3, trial)
    assert records.read() == {3: trial}


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    (tmp_path / "00002.json").write_text("{")
    with pytest.raises(ArtifactError, match=r"00002\.json is not a record of a trial"):
        TrialRecords(str(tmp_path)).read()
