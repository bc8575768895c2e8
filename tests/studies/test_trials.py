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
        "metric": "cam/seed_miou",
        "max_concurrent": 1,
    }
    for score in ("0.25", "0.5"):
        file.write_text(score)
        (trial,) = run_grid(partial(read_score, str(file)), **settings)
        assert trial.history == [{"cam/seed_miou": float(score)}]
