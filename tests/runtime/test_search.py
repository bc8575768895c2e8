"""Search with Ray Tune over a function whose best point is known."""

import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from slams_ray.runtime.search import search
from slams_ray.runtime.search_space import SearchSpace
from slams_ray.runtime.trial_plan import SearchPlan, SearchTrial

pytestmark = pytest.mark.ray

SPACE = SearchSpace({"x": (2, 1, 3, 0), "y": (1.0, 0.5)})


def plan(**changes: Any) -> SearchPlan:
    settings: dict[str, Any] = {
        "algorithm": "random",
        "num_samples": 6,
        "metric": "miou",
        "num_reports": 4,
        "feedback_delay": 1,
        "max_concurrent": 1,
        "cpus_per_trial": 0.5,
        "time_budget_seconds": None,
        "seed": 0,
    }
    return SearchPlan(**settings | changes)


def score(point: Mapping[str, Any]) -> Iterator[dict[str, float]]:
    """Best at x = 2, y = 1; every report says the same."""
    for number in range(4):
        yield {"miou": point["y"] - abs(point["x"] - 2), "number": float(number)}


def test_the_best_point_is_found_and_bad_ones_are_stopped_early(
    ray_cluster: None, tmp_path: Path
) -> None:
    trials = search(score, SPACE, plan(algorithm="grid"), str(tmp_path / "trials"), str)
    assert len(trials) == 8
    assert all(trial.error is None for trial in trials)
    best = max(trials, key=lambda t: t.history[-1]["miou"])
    assert best.point == {"x": 2, "y": 1.0}
    assert [report["number"] for report in best.history] == [0, 1, 2, 3]
    # The points come in the order of the space, the best values of x first.
    worst = min(trials, key=lambda t: t.history[-1]["miou"])
    assert worst.point == {"x": 0, "y": 0.5}
    assert len(worst.history) == 1
    json.dumps([vars(trial) for trial in trials])


def test_more_samples_run_the_further_trials_only_and_fewer_run_none(
    ray_cluster: None, tmp_path: Path
) -> None:
    calls = tmp_path / "calls"
    calls.mkdir()

    def work(point: Mapping[str, Any]) -> Iterator[dict[str, float]]:
        (calls / f"{point['x']},{point['y']}").touch(exist_ok=False)
        yield from score(point)

    def run(**changes: Any) -> list[SearchTrial]:
        settings = plan(algorithm="optuna", feedback_delay=2, **changes)
        return search(work, SPACE, settings, str(tmp_path / "trials"), str)

    first = run(num_samples=3, max_concurrent=2)
    assert len(list(calls.iterdir())) == 3
    extended = run(num_samples=6)
    assert len(list(calls.iterdir())) == 6
    assert extended[:3] == first
    assert run(num_samples=3) == first


def test_a_trial_that_time_runs_out_for_is_not_kept(ray_cluster: None, tmp_path: Path) -> None:
    def slow(point: Mapping[str, Any]) -> Iterator[dict[str, float]]:
        yield {"miou": 0.5}
        if not (tmp_path / "fast").exists():
            time.sleep(600)
        yield {"miou": 1.0}

    def run(seconds: float | None) -> list[list[dict[str, float]]]:
        settings = plan(num_samples=1, num_reports=2, time_budget_seconds=seconds)
        found = search(slow, SPACE, settings, str(tmp_path / "trials"), str)
        return [trial.history for trial in found]

    # Under load the budget may end before the first report, or before the trial starts.
    assert run(5) in ([[{"miou": 0.5}]], [[]], [])
    (tmp_path / "fast").touch()
    assert run(None) == [[{"miou": 0.5}, {"miou": 1.0}]]


def test_a_rerun_repeats_failed_trials_only(ray_cluster: None, tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    calls.mkdir()

    def work(point: Mapping[str, Any]) -> Iterator[dict[str, float]]:
        log = calls / str(point["x"])
        log.write_text(log.read_text() + "x" if log.exists() else "x")
        if point["x"] == 1 and not (tmp_path / "mended").exists():
            raise RuntimeError("the lattice of image 7 is empty")
        yield {"miou": float(point["x"])}

    space = SearchSpace({"x": (0, 1, 2)})
    settings = plan(algorithm="grid", num_reports=1)
    first = {t.point["x"]: t for t in search(work, space, settings, str(tmp_path / "trials"), str)}
    assert first[1].error is not None
    assert "the lattice of image 7 is empty" in first[1].error
    assert first[2].history == [{"miou": 2.0}]
    (tmp_path / "mended").touch()
    second = {t.point["x"]: t for t in search(work, space, settings, str(tmp_path / "trials"), str)}
    assert second[1].error is None
    assert {x: t.history for x, t in second.items()} == {x: [{"miou": float(x)}] for x in range(3)}
    assert {p.name: p.read_text() for p in calls.iterdir()} == {"0": "x", "1": "xx", "2": "x"}


def test_the_key_of_an_object_store_is_not_written_into_rays_logs(
    ray_cluster: None, tmp_path: Path
) -> None:
    import ray

    search(score, SPACE, plan(num_samples=1), str(tmp_path / "trials"), str)
    secret = os.environ["AWS_SECRET_ACCESS_KEY"].encode()
    logs = Path(ray._private.worker._global_node.get_session_dir_path()) / "logs"
    files = [path for path in logs.rglob("*") if path.is_file()]
    assert "runtime_env_agent.log" in {path.name for path in files}
    assert [path.name for path in files if secret in path.read_bytes()] == []
