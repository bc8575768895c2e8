"""Maps refined by walk and colours on the tiny pipeline, and what cannot be walked."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from slams_ray.config import (
    AffinityConfig,
    PipelineConfig,
    RefinementConfig,
    SearchConfig,
    TrainingConfig,
)
from slams_ray.data.stored_maps import unpack_maps
from slams_ray.errors import ConfigError
from slams_ray.stages import pipeline, report
from slams_ray.stages.search_threshold import label_free_choices
from slams_ray.stages.steps import stage_names
from slams_ray.stages.summary import headlines

pytestmark = pytest.mark.ray


def walking(config: PipelineConfig) -> PipelineConfig:
    training = TrainingConfig(
        epochs=1,
        batch_size=4,
        crop_px=48,
        long_side_px=(48, 64),
        learning_rate=0.02,
        head_multiplier=1,
        log_every_steps=1,
    )
    return replace(
        config,
        refinement=RefinementConfig(steps=("walk", "pixel_adaptive", "crf")),
        affinity=AffinityConfig(training=training, radius=4, margin=0.5),
    )


@pytest.fixture(scope="module")
def workspace(finished: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished.copy_to(tmp_path_factory.mktemp("walk"))


@pytest.fixture(scope="module")
def results(finished: Any, workspace: Path) -> Any:
    return pipeline.run(walking(finished.config), str(workspace), "tiny", until="refine").results


def maps(result: Any) -> dict[str, Any]:
    """image_id -> row of the activation shards of a stage."""
    return {
        row["image_id"]: row
        for path in sorted(Path(result.output_dir, "activations").glob("*.parquet"))
        for row in pq.read_table(path).to_pylist()
    }


def test_every_step_has_its_stage_and_its_score(finished: Any, results: Any) -> None:
    config = walking(finished.config)
    assert list(results) == stage_names(config)[: stage_names(config).index("refine") + 1]
    assert stage_names(config)[-9:-3] == [
        "affinity_labels",
        "train_affinity",
        "propagate",
        "search_threshold_walk",
        "pixel_adaptive",
        "search_threshold_pixel_adaptive",
    ]
    for step in ("walk", "pixel_adaptive"):
        metrics = results[f"search_threshold_{step}"].record.metrics
        assert 0 <= metrics[f"slams_{step}_miou"] <= 1
        assert not any(name.startswith("cam_") for name in metrics)
    assert headlines(config)[2:4] == ["slams_walk_miou", "slams_pixel_adaptive_miou"]


def test_the_walk_changes_the_maps_of_the_system_alone(results: Any) -> None:
    before, after = maps(results["infer_activation"]), maps(results["propagate"])
    assert list(before) == list(after)
    assert all(before[i]["cam"] == after[i]["cam"] for i in before)
    assert any(before[i]["slams"] != after[i]["slams"] for i in before)


def test_the_montage_shows_the_edges_that_the_walk_followed(finished: Any, results: Any) -> None:
    config = walking(finished.config)
    shown = report.examples(config, finished.result.results | results)
    assert list(shown[0].maps) == ["CAM", "SLAMs, walk, pixel_adaptive", "edges"]
    for example in shown:
        assert example.maps["edges"].shape == example.image.shape[:2]
        assert 0 < example.maps["edges"].mean() < 1


def test_without_masks_walked_maps_would_get_the_foreground_of_cam(results: Any) -> None:
    def highest(result: Any, system: str) -> list[np.ndarray]:
        return [
            unpack_maps(row[system], row["image_labels"], row["height"], row["width"]).max(0) / 255
            for row in maps(result).values()
            if row["image_labels"]
        ]

    def foreground(scores: list[np.ndarray], threshold: float) -> float:
        return float(np.mean([(s > threshold).mean() for s in scores]))

    cam = label_free_choices(results["search_threshold"], "cam")["cam_foreground"]
    wanted = foreground(highest(results["infer_activation"], "cam"), cam["background_threshold"])
    slams = label_free_choices(results["search_threshold_walk"], "slams")["cam_foreground"]
    walked = highest(results["propagate"], "slams")
    found = foreground(walked, slams["background_threshold"])
    others = [foreground(walked, t) for t in np.linspace(0, 1, 256)]
    assert abs(found - wanted) <= min(abs(np.array(others) - wanted)) + 1e-3


def test_labels_depend_on_the_last_maps_and_on_the_threshold_chosen_for_them(
    results: Any,
) -> None:
    record = results["refine"].record
    assert record.inputs["pixel_adaptive"] == results["pixel_adaptive"].record.fingerprint
    path = results["search_threshold_pixel_adaptive"].path("threshold.json")
    chosen = json.loads(Path(path).read_text())["background_threshold"]["slams"]
    assert record.config["pair"]["chosen"] == chosen


def test_the_confident_pair_of_the_edge_network_is_its_own(finished: Any, results: Any) -> None:
    pair = results["affinity_labels"].record.config["pair"]
    chosen = results["search_threshold"].record.metrics["slams_background_threshold"]
    assert pair["chosen"] == chosen
    assert pair["background"] == pytest.approx(chosen / 3)  # the margin alone would be lower
    assert pair["foreground"] == min(chosen + 0.5, 1)
    assert "edge_mean" in results["train_affinity"].record.notes["last_metrics"]


def test_a_fixed_pair_of_the_edge_network_stays_as_it_is(finished: Any, tmp_path: Path) -> None:
    config = walking(finished.config)
    config = replace(config, affinity=replace(config.affinity, pair=(0.01, 0.6)))
    run = pipeline.run(config, str(finished.copy_to(tmp_path)), "tiny", until="affinity_labels")
    pair = run.results["affinity_labels"].record.config["pair"]
    assert (pair["background"], pair["foreground"]) == (0.01, 0.6)


def test_a_second_run_keeps_every_stage(finished: Any, results: Any, workspace: Path) -> None:
    again = pipeline.run(walking(finished.config), str(workspace), "tiny", until="refine")
    assert all(result.cached for result in again.results.values())


def test_other_numbers_of_steps_train_nothing_again(
    finished: Any, results: Any, workspace: Path
) -> None:
    config = walking(finished.config)
    config = replace(config, walk=replace(config.walk, num_steps=64))
    again = pipeline.run(config, str(workspace), "tiny", until="propagate").results
    worked = [name for name, result in again.items() if not result.cached]
    assert worked == ["propagate"]


def test_a_walk_without_features_is_refused(finished: Any) -> None:
    with pytest.raises(ConfigError, match=r"classifier\.backbone\.weights"):
        replace(walking(finished.config), baselines=())


def test_an_unknown_stage_is_named(finished: Any, workspace: Path) -> None:
    with pytest.raises(ConfigError, match="no stage 'propagate', expected one of prepare"):
        pipeline.run(finished.config, str(workspace), "tiny", until="propagate")


def test_a_search_chooses_among_walks_on_one_edge_network(
    finished: Any, results: Any, workspace: Path
) -> None:
    search = SearchConfig(
        num_samples=2,
        algorithm="grid",
        num_images=4,
        num_slices=1,
        num_thresholds=2,
        form=("label",),
        iterations=(0,),
        cam_power=(1.0,),
        bilateral_sxy_px=(20.0,),
        bilateral_srgb=(5.0,),
        bilateral_compat=(10.0,),
        walk_num_steps=(4096,),
        cpus_per_trial=0.5,
    )
    config = walking(finished.config)
    refinement = RefinementConfig(steps=("walk", "crf"))
    config = replace(config, refinement=refinement, search=search)
    found = pipeline.run(config, str(workspace), "tiny", until="refine").results
    content = json.loads(Path(found["search_refinement"].path("search.json")).read_text())
    walks = {trial["point"]["walk"] for trial in content["trials"]}
    assert walks == {"beta 8, 256 steps", "beta 8, 4096 steps"}
    assert found["train_affinity"].output_dir == results["train_affinity"].output_dir
    chosen = content["best"]["point"]["walk"]
    assert found["propagate"].record.config["num_steps"] == int(chosen.split(", ")[1].split()[0])
    assert found["refine"].record.config["pair"]["chosen"] == content["best"]["chosen"]
