"""Two variants as trials of Ray Tune; a failing one beside them."""

import json
from pathlib import Path
from typing import Any

import pytest

from slams_ray.config import PipelineConfig
from slams_ray.config.overrides import override
from slams_ray.errors import ConfigError, TrainingError
from slams_ray.studies import ablate
from slams_ray.studies.comparison import Score
from slams_ray.studies.variants import RECIPE, VARIANTS

pytestmark = [pytest.mark.ray, pytest.mark.long]

VARIANT = "no foreground loss"


@pytest.fixture(scope="module")
def workspace(finished: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a finished pipeline, which is what the variants differ from."""
    return finished.copy_to(tmp_path_factory.mktemp("ablate"))


@pytest.fixture(scope="module")
def scores(tiny_config: PipelineConfig, workspace: Path) -> list[Score]:
    return ablate.run(tiny_config, str(workspace), "tiny", (0,), (VARIANT,))


def test_the_table_has_cam_the_recipe_and_the_variant(scores: list[Score], workspace: Path) -> None:
    rows = json.loads((workspace / "ablate.json").read_text())
    assert rows == [vars(score) for score in scores]
    seeds = {s.method: s.value for s in scores if s.metric == "seed_miou"}
    assert set(seeds) == {"cam", RECIPE, VARIANT}
    assert (workspace / "ablate.png").is_file()


def test_variants_share_what_they_do_not_change(scores: list[Score], workspace: Path) -> None:
    num_outputs = {
        path.name: len(list(path.iterdir())) for path in workspace.iterdir() if path.is_dir()
    }
    assert num_outputs["train_encoder"] == num_outputs["train_classifier"] == 1
    assert num_outputs["train_activation"] == num_outputs["search_threshold"] == 2
    losses = [
        json.loads((path / "record.json").read_text())["config"]["losses"]["foreground"]
        for path in (workspace / "train_activation").iterdir()
    ]
    assert sorted(losses) == [0.0, 1.0]


def test_an_unknown_variant_is_named_before_any_work(
    ray_cluster: None, tiny_config: PipelineConfig, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="no variant 'nothing'"):
        ablate.run(tiny_config, str(tmp_path), "tiny", (0,), ("nothing",))
    assert list(tmp_path.iterdir()) == []


def test_a_failing_variant_leaves_a_table_of_the_others(
    scores: list[Score], tiny_config: PipelineConfig, workspace: Path, monkeypatch: Any
) -> None:
    shown: list[Score] = []
    broken = {"classifier.backbone.weights": "/nowhere/weights.pth"}
    monkeypatch.setitem(VARIANTS, "broken", broken)
    with pytest.raises(TrainingError, match="broken, seed 0"):
        ablate.run(
            tiny_config, str(workspace), "tiny", (0,), (VARIANT, "broken"), show=shown.extend
        )
    rows = json.loads((workspace / "ablate.json").read_text())
    assert {row["method"] for row in rows} == {"cam", RECIPE, VARIANT}
    assert [vars(score) for score in shown] == rows


def test_variants_that_the_recipe_is_are_left_out(
    scores: list[Score], tiny_config: PipelineConfig, workspace: Path
) -> None:
    same = "initialised from CAM"
    assert override(tiny_config, VARIANTS[same]) == tiny_config
    again = ablate.run(tiny_config, str(workspace), "tiny", (0,), (VARIANT, same))
    assert {score.method for score in again} == {"cam", RECIPE, VARIANT}
