"""CAM beside SLAMs in a trial of Ray Tune, on the tiny data set."""

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from slams_ray.config import PipelineConfig, RefinementConfig
from slams_ray.config.pipeline import SystemName
from slams_ray.errors import ConfigError, TrainingError
from slams_ray.runtime.tracking import Run
from slams_ray.studies import compare
from slams_ray.studies.comparison import Score
from slams_ray.studies.rows import Rows
from slams_ray.studies.scores import LABEL_METRICS, SEED_METRICS, Study, collect, finish

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def workspace(finished: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a finished pipeline, whose stages serve SLAMs of seed 0."""
    return finished.copy_to(tmp_path_factory.mktemp("compare"))


@pytest.fixture(scope="module")
def scores(tiny_config: PipelineConfig, workspace: Path) -> list[Score]:
    return compare.run(tiny_config, str(workspace), "tiny", (0,))


def test_every_method_and_seed_has_every_metric(scores: list[Score], workspace: Path) -> None:
    rows = json.loads((workspace / "compare.json").read_text())
    assert rows == [vars(score) for score in scores]
    found = {(row["method"], row["seed"], row["metric"]) for row in rows}
    # Precision is undefined if the best threshold leaves no foreground; maps are not refined here.
    of_maps = {"walk_miou", "pixel_adaptive_miou"}
    required = {*SEED_METRICS, *LABEL_METRICS, "training_steps", "training_seconds"}
    required -= {*of_maps, "foreground_precision"}
    assert {(method, 0, metric) for method in ("cam", "slams") for metric in required} <= found
    costs = ("training_steps", "training_seconds")
    assert all(0 <= row["value"] <= 1 for row in rows if row["metric"] not in costs)
    assert (workspace / "compare.png").read_bytes().startswith(b"\x89PNG")


def refinements(workspace: Path, config: PipelineConfig) -> list[dict[str, Any]]:
    """Records of the refinements with these settings; other tests leave others in the workspace."""
    records = [json.loads(p.read_text()) for p in (workspace / "refine").glob("*/record.json")]
    return [r for r in records if r["config"]["gt_prob"] == config.crf.gt_prob]


def test_methods_share_networks_and_part_at_refinement(
    scores: list[Score], tiny_config: PipelineConfig, workspace: Path
) -> None:
    for stage in ("prepare", "train_activation", "infer_activation"):
        assert len(list((workspace / stage).iterdir())) == 1
    found = refinements(workspace, tiny_config)
    assert sorted(record["config"]["system"] for record in found) == ["cam", "slams"]


def test_rows_equal_what_the_stages_recorded(
    scores: list[Score], tiny_config: PipelineConfig, workspace: Path
) -> None:
    for record in refinements(workspace, tiny_config):
        method = record["config"]["system"]
        values = [s.value for s in scores if (s.method, s.metric) == (method, "refined_miou")]
        assert values == [record["metrics"]["refined_miou"]]


def test_mlflow_nests_stages_under_seeds_under_the_study(
    scores: list[Score], workspace: Path
) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{workspace}/mlflow.db")
    experiments = [found.experiment_id for found in client.search_experiments()]
    runs = {run.info.run_id: run for run in client.search_runs(experiments, max_results=1000)}
    names = {i: run.data.tags["mlflow.runName"] for i, run in runs.items()}
    (study,) = [i for i, name in names.items() if name == "compare tiny"]
    (seed,) = [i for i, name in names.items() if name == "tiny seed 0"]
    assert runs[seed].data.tags["mlflow.parentRunId"] == study
    children = [i for i, r in runs.items() if r.data.tags.get("mlflow.parentRunId") == seed]
    assert sorted(names[i] for i in children) == ["evaluate", "refine", "train_segmentation"]
    assert "slams/seed_miou" in runs[seed].data.metrics
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    assert {"compare.json", "compare.png"} <= {f.path for f in client.list_artifacts(study)}


def test_again_it_trains_nothing_and_gives_the_same(
    scores: list[Score],
    tiny_config: PipelineConfig,
    workspace: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.INFO, "slams_ray"):
        again = compare.run(tiny_config, str(workspace), "tiny", (0,))
    assert again == scores
    assert not any("started" in record.getMessage() for record in caplog.records)


def test_costs_are_those_of_one_system_where_the_walk_needs_the_classifier_of_another(
    finished: Any,
) -> None:
    refinement = RefinementConfig(steps=("walk", "crf"))
    config = replace(finished.config, refinement=refinement)
    results = finished.result.results
    (steps,) = (s for s in collect(results, config) if s.metric == "training_steps")
    own = ("train_classifier", "train_encoder", "train_activation")
    assert steps.value == sum(results[stage].record.notes["num_steps"] for stage in own)


def test_a_study_without_scores_of_masks_has_a_table_and_no_figure(tmp_path: Path) -> None:
    shown: list[Score] = []
    scores = [Score(method="cam", seed=0, metric="training_steps", value=12)]
    study = Study(
        workspace=str(tmp_path),
        name="compare",
        run=Run("http://127.0.0.1:9", None),
        titles={"cam": "CAM"},
    )
    finish(study, scores, shown.extend, [], 1)
    assert shown == scores
    assert [path.name for path in tmp_path.iterdir()] == ["compare.json"]


@pytest.mark.parametrize(
    ("systems", "until", "message"),
    [
        (("cam", "masks"), "refin", "no stage 'refin'"),
        (("masks",), "segmentaton", "no stage 'segmentaton'"),
        (("cam",), "search_threshold_walk", "no stage 'search_threshold_walk'"),
    ],
)
def test_a_last_stage_that_a_row_lacks_is_refused_before_anything_runs(
    systems: tuple[SystemName, ...],
    until: str,
    message: str,
    tiny_config: PipelineConfig,
    tmp_path: Path,
) -> None:
    rows = Rows(systems=systems, refinements=("crf",), until=until)
    with pytest.raises(ConfigError, match=message):
        compare.run(tiny_config, str(tmp_path), "tiny", (0,), rows)
    assert list(tmp_path.iterdir()) == []


def test_a_row_of_masks_ends_with_its_labels_where_others_end_before_networks(
    tiny_config: PipelineConfig,
) -> None:
    rows = Rows(systems=("cam", "masks"), refinements=("crf",), until="refine")
    of_cam, of_masks = (config for _, config in rows.pipelines(tiny_config))
    assert compare.last_stage(of_cam, "refine") == "refine"
    assert compare.last_stage(of_masks, "refine") == "import_labels"
    assert compare.last_stage(of_masks, "evaluate") == "evaluate"


def test_a_failed_seed_leaves_a_table_of_the_others_and_is_then_named(tmp_path: Path) -> None:
    shown: list[Score] = []
    scores = [Score(method=m, seed=0, metric="seed_miou", value=0.5) for m in ("cam", "slams")]
    study = Study(
        workspace=str(tmp_path),
        name="compare",
        run=Run("http://127.0.0.1:9", None),
        titles={"cam": "CAM", "slams": "SLAMs"},
    )
    with pytest.raises(TrainingError, match=r"1 of 2 failed \(seed 1\).*tries them again"):
        finish(study, scores, shown.extend, ["seed 1"], 2)
    assert shown == scores
    assert json.loads((tmp_path / "compare.json").read_text()) == [vars(s) for s in scores]
    assert (tmp_path / "compare.png").is_file()


def test_labels_without_any_refinement_are_a_row(tiny_config: PipelineConfig) -> None:
    without = replace(tiny_config, refinement=RefinementConfig(steps=()))
    assert Rows.of(without, "evaluate").refinements == ("none",)
    rows = Rows(systems=("cam",), refinements=("crf", "none"), until="evaluate")
    found = {name: config.refinement.steps for name, config in rows.pipelines(tiny_config)}
    assert found == {"crf": ("crf",), "none": ()}
