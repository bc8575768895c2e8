"""The whole pipeline on a tiny data set: outputs, tracking, reruns, overrides, damage."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from slams_ray import provenance, storage
from slams_ray.artifacts import RECORD_NAME
from slams_ray.config.overrides import override
from slams_ray.data.image import decode_mask
from slams_ray.errors import ArtifactError, ConfigError
from slams_ray.stages import pipeline, train_systems
from slams_ray.stages.refine import refiners
from slams_ray.stages.stage import Attempt, Outcome
from slams_ray.stages.steps import stage_names
from slams_ray.stages.summary import headlines
from slams_ray.stages.training import LAST, MODEL_NAME

pytestmark = pytest.mark.ray

PARENT = "tiny slams seed 0"
"""Name of the parent run."""


def mlflow_runs(workspace: Path) -> dict[str, list[Any]]:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{workspace}/mlflow.db")
    runs: dict[str, list[Any]] = {}
    for run in client.search_runs([e.experiment_id for e in client.search_experiments()]):
        runs.setdefault(run.data.tags["mlflow.runName"], []).append(run)
    return runs


def test_every_stage_leaves_a_record_and_the_summary_tells_of_it(finished: Any) -> None:
    summary = json.loads((finished.workspace / "summary.json").read_text())
    assert [s["stage"] for s in summary["stages"]] == stage_names(finished.config)
    for stage in summary["stages"]:
        assert (Path(stage["output"]) / RECORD_NAME).is_file()
        assert stage["rows"] > 0
        assert stage["seconds"] > 0
    assert list(summary["scores"]) == headlines(finished.config)
    records = finished.workspace.glob(f"*/*/{RECORD_NAME}")
    made = {f"{path.parent.parent.name}/{path.parent.name}" for path in records}
    assert (
        made
        >= set(summary["outputs"])
        >= {"/".join(s["output"].split("/")[-2:]) for s in summary["stages"]}
    )
    assert all(0 <= value <= 1 for value in summary["scores"].values())


def test_a_record_says_on_what_and_by_which_code_it_was_made(finished: Any) -> None:
    for stage, result in finished.result.results.items():
        record = result.record
        assert sum(record.devices.values()) == sum(record.nodes.values()) > 0, stage
        assert record.arithmetic == provenance.arithmetic()
        assert record.has_changes in (True, False, None)
    for stage in ("infer_activation", "evaluate"):
        config = finished.result.results[stage].record.config
        assert config["precision"] in ("float32", "bfloat16"), "auto says nothing"


def test_an_output_of_another_version_of_the_arithmetic_is_told(
    finished: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    workspace = finished.copy_to(tmp_path)
    (path,) = workspace.glob(f"train_encoder/*/{RECORD_NAME}")
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"arithmetic": "0123456789ab"}))
    with caplog.at_level("INFO"):
        result = pipeline.run(finished.config, str(workspace), "tiny", until="train_encoder")
    assert result.results["train_encoder"].cached
    (told,) = [r for r in caplog.records if str(path.parent) in r.getMessage()]
    assert told.levelname == "WARNING"
    line = told.getMessage()
    assert "kept" in line
    assert "another version of the arithmetic computed it: 0123456789ab, now" in line
    assert "remove it to compute it again" in line


def test_every_image_reaches_every_shard(finished: Any) -> None:
    outputs = {name: Path(r.output_dir) for name, r in finished.result.results.items()}
    directories = [
        outputs["prepare"] / "images/train",
        outputs["infer_activation"] / "activations",
        outputs["refine"] / "pseudo_labels",
    ]
    ids = [
        {p.name: pq.read_table(p, columns=["image_id"]).column(0).to_pylist() for p in d.iterdir()}
        for d in directories
    ]
    assert ids[0] == ids[1] == ids[2]
    assert sum(len(v) for v in ids[0].values()) == 24


def test_export_is_a_voc_tree_of_palette_masks(finished: Any) -> None:
    voc = Path(finished.result.results["refine"].output_dir) / "voc"
    names = (voc / "ImageSets/Segmentation/train.txt").read_text().split()
    assert len(names) == 24
    for name in names:
        mask = Image.open(voc / "SegmentationClass" / f"{name}.png")
        image = Image.open(voc / "JPEGImages" / f"{name}.jpg")
        assert mask.mode == "P"
        assert mask.size == image.size
    assert (voc / "class_names.txt").read_text().split()[0] == "background"


def test_pseudo_labels_name_only_labelled_classes(finished: Any) -> None:
    outputs = finished.result.results
    images = Path(outputs["prepare"].output_dir) / "images/train"
    for path in (Path(outputs["refine"].output_dir) / "pseudo_labels").iterdir():
        labels = pq.read_table(images / path.name, columns=["image_labels"]).column(0).to_pylist()
        masks = pq.read_table(path, columns=["pseudo_label"]).column(0).to_pylist()
        for present, mask in zip(labels, masks, strict=True):
            found = set(np.unique(np.asarray(Image.open(io.BytesIO(mask)))))
            assert found <= {0, 255, *present}


def test_mlflow_shows_a_parent_with_one_finished_child_per_stage(finished: Any) -> None:
    runs = mlflow_runs(finished.workspace)
    (parent,) = runs[PARENT]
    assert set(runs) == {PARENT, *stage_names(finished.config)}
    assert all(run.info.status == "FINISHED" for group in runs.values() for run in group)
    for name, (run,) in runs.items():
        if name != PARENT:
            assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
    for name, value in finished.result.summary["scores"].items():
        assert parent.data.metrics[name] == pytest.approx(value)
    assert parent.data.params["crf.iterations"] == "1"


def test_mlflow_holds_curves_figures_tables_and_the_data_set(finished: Any) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{finished.workspace}/mlflow.db")
    runs = mlflow_runs(finished.workspace)

    def artifacts(name: str) -> set[str]:
        return {f.path for f in client.list_artifacts(runs[name][0].info.run_id)}

    assert {"montage.png", "threshold_curve.png", "per_class_iou.png"} <= artifacts(PARENT)
    assert "threshold_curve.png" in artifacts("search_threshold")
    assert {"per_class_iou.png", "per_class_iou.json"} <= artifacts("evaluate")
    assert "checkpoint" in artifacts("train_activation")
    curve = client.get_metric_history(
        runs["search_threshold"][0].info.run_id, "threshold_slams/miou"
    )
    assert len(curve) == finished.config.threshold.num_thresholds
    losses = client.get_metric_history(runs["train_encoder"][0].info.run_id, "encoder/loss")
    assert [m.step for m in losses] == [1, 2, 3, 4, 5, 6]
    (dataset,) = runs["prepare"][0].inputs.dataset_inputs
    assert dataset.dataset.name == "synthetic"


def test_a_second_run_changes_nothing(finished: Any) -> None:
    before = (finished.workspace / "summary.json").read_bytes()
    num_runs = len(mlflow_runs(finished.workspace))
    again = pipeline.run(finished.config, str(finished.workspace), "tiny")
    assert all(result.cached for result in again.results.values())
    assert (finished.workspace / "summary.json").read_bytes() == before
    assert len(mlflow_runs(finished.workspace)) == num_runs


@pytest.mark.parametrize(
    ("change", "last_stage", "expected"),
    [
        ({"crf.gt_prob": 0.8}, "refine", {"refine"}),
        ({"segmentation.inference.flip": False}, "evaluate", {"evaluate"}),
        pytest.param(
            {"crf.gt_prob": 0.9},
            "evaluate",
            {"refine", "train_segmentation", "evaluate"},
            marks=pytest.mark.long,
        ),
    ],
)
def test_changing_a_setting_reruns_what_depends_on_it(
    finished: Any, tmp_path: Path, change: Any, last_stage: str, expected: set[str]
) -> None:
    config = override(finished.config, change)
    changed = pipeline.run(config, str(finished.copy_to(tmp_path)), "tiny", last_stage)
    worked = {name for name, result in changed.results.items() if not result.cached}
    assert worked == expected


def test_a_corrected_mask_is_scored_anew_and_nothing_else_is_made_again(
    finished: Any, tmp_path: Path
) -> None:
    workspace = finished.copy_to(tmp_path)
    (annotations,) = (workspace / "synthetic").glob("*/annotations/instances_val.json")
    content = json.loads(annotations.read_text())
    content["annotations"][0]["segmentation"] = [[2.0, 2.0, 12.0, 2.0, 12.0, 9.0, 2.0, 9.0]]
    annotations.write_text(json.dumps(content))
    changed = pipeline.run(finished.config, str(workspace), "tiny")
    worked = {name for name, result in changed.results.items() if not result.cached}
    assert worked == {"prepare", "evaluate"}
    before, after = finished.result.results, changed.results
    assert after["evaluate"].record.metrics != before["evaluate"].record.metrics
    old, new = (r["evaluate"].record.notes["num_scored_images"] for r in (before, after))
    assert old == new
    images = {
        path.relative_to(after["prepare"].output_dir): path.read_bytes()
        for path in Path(after["prepare"].output_dir).rglob("*.parquet")
    }
    unchanged = [
        name
        for name, data in images.items()
        if (Path(before["prepare"].output_dir) / name).read_bytes() == data
    ]
    assert len(unchanged) == len(images) - 1


def test_a_network_that_learns_masks_is_trained_again_after_one_is_corrected(
    finished: Any, tmp_path: Path
) -> None:
    workspace = finished.copy_to(tmp_path)
    config = override(finished.config, {"segmentation.learn_masks": True})
    first = pipeline.run(config, str(workspace), "tiny")
    network, without = first.results["train_segmentation"], finished.result.results
    assert not network.cached
    assert network.record.metrics["loss"] != without["train_segmentation"].record.metrics["loss"]
    assert first.results["refine"].cached
    (annotations,) = (workspace / "synthetic").glob("*/annotations/instances_train.json")
    content = json.loads(annotations.read_text())
    content["annotations"][0]["segmentation"] = [[2.0, 2.0, 12.0, 2.0, 12.0, 9.0, 2.0, 9.0]]
    annotations.write_text(json.dumps(content))
    again = pipeline.run(config, str(workspace), "tiny", until="train_segmentation")
    assert not again.results["train_segmentation"].cached
    assert again.results["train_activation"].cached


def test_a_crf_in_torch_gives_the_labels_of_the_compiled_one(finished: Any, tmp_path: Path) -> None:
    config = override(finished.config, {"crf.backend": "torch"})
    found = pipeline.run(config, str(finished.copy_to(tmp_path)), "tiny", until="refine")
    refined, expected = found.results["refine"], finished.result.results["refine"]
    assert not refined.cached
    for name in sorted(path.name for path in Path(expected.output_dir).glob("pseudo_labels/*")):
        rows = [
            pq.read_table(Path(result.output_dir) / "pseudo_labels" / name).to_pylist()
            for result in (refined, expected)
        ]
        for one, other in zip(*rows, strict=True):
            labels = [decode_mask(row["pseudo_label"], row["image_id"]) for row in (one, other)]
            assert (labels[0] == labels[1]).mean() >= 0.999


@pytest.mark.parametrize("backend", ["numba", "pydensecrf"])
def test_only_the_crf_in_torch_asks_for_gpus(backend: str, finished: Any) -> None:
    compute = finished.config.compute
    assert refiners(override(finished.config, {"crf.backend": backend}).crf, compute) is None
    on_gpus = refiners(override(finished.config, {"crf.backend": "torch"}).crf, compute)
    assert on_gpus is not None
    assert on_gpus() is None, "there are none here"


def test_an_interrupted_stage_redoes_only_the_damaged_shard(finished: Any) -> None:
    result = finished.result.results["infer_activation"]
    shards = sorted((Path(result.output_dir) / "activations").iterdir())
    original = shards[1].read_bytes()
    kept = {p: p.stat().st_mtime_ns for p in shards if p != shards[1]}
    shards[1].write_bytes(original[: len(original) // 2])
    (Path(result.output_dir) / RECORD_NAME).unlink()
    again = pipeline.run(finished.config, str(finished.workspace), "tiny", until="infer_activation")
    assert not again.results["infer_activation"].cached
    assert {p: p.stat().st_mtime_ns for p in kept} == kept
    assert pq.read_table(shards[1]).num_rows == 6


def test_a_run_that_ends_early_logs_the_scores_that_it_has(finished: Any, tmp_path: Path) -> None:
    workspace = finished.copy_to(tmp_path)
    config = override(finished.config, {"threshold.fixed": 0.3})
    found = pipeline.run(config, str(workspace), "early", until="search_threshold")
    (parent,) = mlflow_runs(workspace)["early slams seed 0"]
    scores = {name: value for name, value in found.summary["scores"].items() if value is not None}
    assert scores.keys() == {"cam_seed_miou", "slams_seed_miou"}
    thresholds = {"cam_background_threshold": 0.3, "slams_background_threshold": 0.3}
    assert parent.data.metrics == pytest.approx(scores | thresholds)


def test_a_stage_that_does_not_exist_is_refused_before_anything_is_written(
    finished: Any, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="no stage 'train', expected one of prepare, "):
        pipeline.run(finished.config, str(tmp_path / "runs"), "tiny", until="train")
    assert not any(tmp_path.iterdir())


def test_a_demanded_gpu_that_the_cluster_lacks_is_missed_before_any_stage(
    finished: Any, tmp_path: Path
) -> None:
    config = override(finished.config, {"compute.device": "gpu"})
    with pytest.raises(ConfigError, match=r"compute\.device is gpu, but the cluster has no GPU"):
        pipeline.run(config, str(tmp_path / "runs"), "tiny")
    assert not (tmp_path / "runs" / "prepare").exists()


def test_a_montage_that_is_gone_or_has_other_images_is_drawn_again(
    finished: Any, tmp_path: Path
) -> None:
    workspace = finished.copy_to(tmp_path)
    montage = workspace / "montage.png"
    two = Image.open(montage).size
    montage.unlink()
    pipeline.run(finished.config, str(workspace), "tiny")
    assert Image.open(montage).size == two
    pipeline.run(override(finished.config, {"tracking.num_examples": 1}), str(workspace), "tiny")
    assert Image.open(montage).size[1] < two[1]


def test_a_damaged_record_is_named(finished: Any) -> None:
    record = Path(finished.result.results["prepare"].output_dir) / RECORD_NAME
    whole = record.read_bytes()
    record.write_bytes(whole[:40])
    try:
        with pytest.raises(ArtifactError, match=str(record)):
            pipeline.run(finished.config, str(finished.workspace), "tiny")
    finally:
        record.write_bytes(whole)


def test_an_activation_network_that_starts_on_its_own_does_not_depend_on_the_classifier(
    finished: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which records depend on which: no network is trained for it."""
    trained: list[str] = []

    def leave_a_model(context: Any, this: Any, data: Any, attempt: Attempt) -> Outcome:
        storage.write_bytes(storage.join(attempt.output_dir, MODEL_NAME), b"network")
        trained.append(this.label)
        return Outcome(num_rows=1, notes={LAST: {}})

    monkeypatch.setattr(train_systems, "train", leave_a_model)
    workspace = str(finished.copy_to(tmp_path))
    for changes, expected in (
        ({}, ["activation"]),
        ({"classifier.training.learning_rate": 1e-4}, ["classifier"]),
    ):
        config = override(finished.config, {"activation.initialise_from_cam": False} | changes)
        trained.clear()
        result = pipeline.run(config, workspace, "tiny", until="train_activation")
        assert trained == expected
        network = result.results["train_activation"]
        assert set(network.record.inputs) == {"prepare", "train_encoder"}


@pytest.mark.long
def test_a_collapsed_training_is_warned_of_in_the_summary(finished: Any, tmp_path: Path) -> None:
    collapsing = override(
        finished.config,
        {
            "activation.losses.regularization": 100.0,
            "activation.training.epochs": 8,
            "activation.training.learning_rate": 1e-2,
        },
    )
    workspace = str(finished.copy_to(tmp_path))
    result = pipeline.run(collapsing, workspace, "tiny", until="infer_activation")
    warnings = result.summary["warnings"]
    assert any(w.startswith("all-zero collapse") for w in warnings)
    assert any(w.startswith("dead class") for w in warnings)
    assert not any("collapse" in w for w in finished.result.summary["warnings"])
