"""The grid of a study."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from slams_ray.config import PipelineConfig
from slams_ray.studies.trials import Point, run_grid


def read_score(path: str, point: Point) -> Iterator[dict[str, float]]:
    yield {"cam/seed_miou": float(Path(path).read_text())}


def without_score(point: Point) -> Iterator[dict[str, float]]:
    yield {"cam/training_steps": float(point["seed"])}


@pytest.mark.ray
def test_trials_need_no_score(
    ray_cluster: None, tiny_config: PipelineConfig, tmp_path: Path
) -> None:
    """Data without masks has none."""
    found = run_grid(without_score, {"seed": [3, 5]}, tiny_config, str(tmp_path / "g"), str, None)
    assert [trial.error for trial in found] == [None, None]
    assert sorted(trial.history[-1]["cam/training_steps"] for trial in found) == [3, 5]


@pytest.mark.ray
def test_a_rerun_scores_what_is_there_now(
    ray_cluster: None, tiny_config: PipelineConfig, tmp_path: Path
) -> None:
    file = tmp_path / "score"
    settings: dict[str, Any] = {
        "grid": {"seed": [0]},
        "config": tiny_config,
        "directory": str(tmp_path / "compare"),
        "label": str,
        "max_concurrent": 1,
    }
    for score in ("0.25", "0.5"):
        file.write_text(score)
        (trial,) = run_grid(partial(read_score, str(file)), **settings)
        (report,) = trial.history
        assert report["cam/seed_miou"] == float(score)
