"""The segmentation network as an MLflow model: without pickle, with its scores, registered."""

import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

import slams_ray
from slams_ray.artifacts import Record
from slams_ray.config import TrackingConfig
from slams_ray.data.image import encode_jpeg
from slams_ray.data.schema import DatasetDescription, voc_palette
from slams_ray.errors import ArtifactError, ConfigError
from slams_ray.recipes import RECIPES
from slams_ray.runtime import retry_queue
from slams_ray.runtime.tracking import Run, Tracker
from slams_ray.stages import predict, publish_model, summary
from slams_ray.stages.stage import Result
from slams_ray.storage import write_table

pytestmark = pytest.mark.slow

DESCRIPTION = DatasetDescription(
    name="pets",
    class_names=("background", "cat", "dog"),
    category_ids=(0, 1, 2),
    palette=voc_palette(3),
)
Results = dict[str, Result]
Settings = dict[str, Any]


def finished_stage(
    root: Path,
    stage: str,
    fingerprint: str,
    *,
    config: dict[str, Any],
    notes: dict[str, Any],
    miou: float,
) -> Result:
    record = Record(
        stage=stage,
        fingerprint=fingerprint,
        config=config,
        inputs={"prepare": notes.get("digest", "")},
        seconds=1,
        num_rows=1,
        metrics={"segmentation_miou": miou, "pixel_accuracy": 0.9},
        notes=notes,
    )
    return Result(output_dir=str(root / stage), record=record, cached=False)


@pytest.fixture
def results(write_checkpoint: Callable[..., Path], tmp_path: Path) -> Callable[..., Results]:
    """Finished stages whose evaluation used other scales than the checkpoint says."""
    prepared = tmp_path / "prepare"
    image = encode_jpeg(np.full((20, 30, 3), 128, np.uint8))
    shard = pa.table({"image_id": ["a"], "image": [image]})
    write_table(str(prepared / "images" / "val" / "0.parquet"), shard)
    (prepared / "dataset.json").write_text(DESCRIPTION.to_json())
    (tmp_path / "train_segmentation").mkdir()
    write_checkpoint(32).rename(tmp_path / "train_segmentation" / "model.pt")
    shards = {"shards": {"val": [["0.parquet", 1, "", ""]]}, "splits": {"val": {"num_masks": 1}}}
    scored = {"split": "val", "scales": [1.0], "flip": False, "precision": "float32"}

    def make(fingerprint: str, miou: float, digest: str = "digest") -> Results:
        stages = [
            ("prepare", {"format": "folder", "max_side_px": 48}, shards),
            ("train_segmentation", {}, {}),
            ("evaluate", scored | {"max_side_px": 48}, {"digest": digest}),
        ]
        return {
            stage: finished_stage(
                tmp_path, stage, fingerprint, config=config, notes=notes, miou=miou
            )
            for stage, config, notes in stages
        }

    return make


def publish(run: Run, results: Results, name: str | None = "pets") -> None:
    context = SimpleNamespace(
        session=SimpleNamespace(open=lambda: run), tracking=TrackingConfig(registered_name=name)
    )
    publish_model.publish(context, results)


def test_the_network_becomes_a_model_that_loads_without_pickle_and_gives_the_jobs_mask(
    results: Callable[..., Results],
    photographs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tracker = Tracker(str(tmp_path), "e")
    run = tracker.start("run", {})
    publish(run, results("first", 0.5))
    publish(run, results("first", 0.5))
    (model,) = run.client.search_logged_models([str(tracker.experiment_id)])
    assert (model.status, model.source_run_id) == ("READY", run.run_id)
    linked = {m.key: (m.value, m.dataset_name, m.dataset_digest) for m in model.metrics}
    assert linked["segmentation_miou"] == (0.5, "folder val", "digest")
    assert linked.keys() == {"segmentation_miou", "pixel_accuracy"}
    (version,) = run.client.search_model_versions("name = 'pets'")
    assert run.client.get_model_version_by_alias("pets", "best").version == version.version

    script = (
        "import sys, mlflow\n"
        "model = mlflow.pyfunc.load_model('models:/pets@best')\n"
        "data = open(sys.argv[1], 'rb').read()\n"
        "open(sys.argv[2], 'wb').write(model.predict([data])[0])\n"
        "print(model.metadata.signature.inputs, 'ray' in sys.modules)"
    )
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracker.uri)
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    # Without the path of the sources the model runs on the code that it contains.
    monkeypatch.delenv("PYTHONPATH", raising=False)
    mask, photograph = tmp_path / "mask.png", photographs / "large.jpg"
    found = subprocess.run(
        [sys.executable, "-c", script, str(photograph), str(mask)],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert found.returncode == 0, found.stderr
    assert "binary (required)" in found.stdout
    assert found.stdout.strip().endswith("False")
    assert predict.run("models:/pets@best", str(photographs), str(tmp_path / "masks")) == 3
    np.testing.assert_array_equal(
        np.asarray(Image.open(io.BytesIO(mask.read_bytes()))),
        np.asarray(Image.open(tmp_path / "masks" / "large.png")),
    )
    loaded = slams_ray.load("models:/pets@best")
    assert (loaded.predictor.scales, loaded.max_side_px) == ((1.0,), 48), "not as it was scored"
    run.log_file(str(tmp_path / "train_segmentation" / "model.pt"), "checkpoint")
    checkpoint = slams_ray.load(f"runs:/{run.run_id}/checkpoint/model.pt")
    assert (checkpoint.predictor.flip, checkpoint.max_side_px) == (True, 32), "not as trained"
    with pytest.raises(ArtifactError, match="has no models:/pets@worst"):
        slams_ray.load("models:/pets@worst")


def test_the_alias_moves_only_to_a_higher_score_on_the_same_split(
    results: Callable[..., Results], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "slams_ray.runtime.tracked_model.save",
        lambda _, directory, model_id: (
            directory.mkdir(),
            (directory / "MLmodel").write_text("{}"),
        ),
    )
    tracker = Tracker(str(tmp_path), "e")
    best = []
    for fingerprint, miou, digest in (
        ("a", 0.5, "digest"),
        ("b", 0.4, "digest"),
        ("c", 0.9, "another split"),
        ("d", 0.6, "digest"),
        ("d", 0.6, "digest"),
    ):
        run = tracker.start("run", {})
        publish(run, results(fingerprint, miou, digest))
        version = run.client.get_model_version_by_alias("pets", "best")
        best.append(version.tags["slams.score"])
    assert best == ["0.5", "0.5", "0.5", "0.6", "0.6"]
    assert len(run.client.search_model_versions("name = 'pets'")) == 4


def test_a_finished_pipeline_registers_its_network_when_a_name_is_given_later(
    results: Callable[..., Results], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published: list[str | None] = []
    monkeypatch.setattr(
        publish_model,
        "publish",
        lambda context, _: published.append(context.tracking.registered_name),
    )
    text: dict[str, Any] = {"scores": {}}
    (tmp_path / "summary.json").write_text(json.dumps(text, indent=1))
    (tmp_path / "montage.png").touch()
    for name in (None, "pets"):
        context: Any = SimpleNamespace(
            workspace=str(tmp_path), tracking=TrackingConfig(registered_name=name)
        )
        summary.publish(context, RECIPES["smoke"](), results("a", 0.5), text)
    assert published == ["pets"]


def test_a_server_that_is_gone_ends_nothing(
    results: Callable[..., Results], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry_queue, "PATIENCE_SECONDS", 0.0)
    publish(Run("http://127.0.0.1:9", "0" * 32), results("a", 0.5))


@pytest.mark.parametrize("name", ["a/b", "a:b", " "])
def test_a_name_that_mlflow_refuses_is_an_error_before_the_pipeline(name: str) -> None:
    with pytest.raises(ConfigError, match=r"tracking\.registered_name"):
        TrackingConfig(registered_name=name)


def test_a_registered_name_may_contain_a_quote(
    results: Callable[..., Results], tmp_path: Path
) -> None:
    run = Tracker(str(tmp_path), "e").start("run", {})
    publish(run, results("first", 0.5), "the cat's")
    publish(run, results("first", 0.5), "the cat's")
    model = run.client.get_registered_model("the cat's")
    assert str(model.aliases["best"]) == "1"
    versions = [v for v in run.client.search_model_versions() if v.name == "the cat's"]
    assert len(versions) == 1
