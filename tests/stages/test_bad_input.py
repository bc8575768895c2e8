"""Bad input on the way through stages: a clear error or a counted skip, and nothing lost."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from slams_ray.config import DataConfig, PipelineConfig
from slams_ray.config.pipeline import GIVEN_WEIGHTS
from slams_ray.data.source import generate
from slams_ray.errors import ArtifactError, ConfigError, DataError, TrainingError
from slams_ray.model.source import find_model
from slams_ray.networks.backbone import build_backbone
from slams_ray.networks.checkpoint import dump_network
from slams_ray.networks.segmentation_network import SegmentationNetwork
from slams_ray.stages import pipeline, predict, prepare, train_systems
from slams_ray.stages.paths import with_absolute_paths
from slams_ray.stages.prepare import PreparedData
from slams_ray.stages.stage import Result, StageContext
from slams_ray.stages.training import backbone_settings, network_settings
from slams_ray.systems.registry import trainings_of

pytestmark = pytest.mark.ray


@contextmanager
def make_context(directory: Path, config: PipelineConfig) -> Iterator[StageContext]:
    with pipeline.open_session(config, str(directory), "bad") as session:
        yield pipeline.make_context(config, session)


def train_encoder(context: StageContext, config: PipelineConfig, data: PreparedData) -> Result:
    (training,) = (
        t for t in trainings_of(with_absolute_paths(config)) if t.stage == "train_encoder"
    )
    return train_systems.SystemTraining(stage=training, seed=0, data=data, needed={}).run(context)


@pytest.fixture
def coco(tmp_path: Path, tiny_config: PipelineConfig) -> tuple[Path, DataConfig]:
    """A COCO tree whose third training image is truncated."""
    root = Path(generate(tiny_config.data, str(tmp_path)))
    victim = sorted((root / "train").iterdir())[2]
    victim.write_bytes(victim.read_bytes()[:500])
    return victim, DataConfig(format="coco", root=str(root), images_per_shard=6)


def test_a_truncated_image_ends_the_stage_with_its_name(
    ray_cluster: None, coco: tuple[Path, DataConfig], tmp_path: Path, tiny_config: PipelineConfig
) -> None:
    victim, config = coco
    with (
        make_context(tmp_path, tiny_config) as context,
        pytest.raises(DataError, match=rf"{victim}.*truncated.*on_bad_image"),
    ):
        prepare.run(context, config)


def test_a_truncated_image_is_skipped_listed_and_counted(
    ray_cluster: None, coco: tuple[Path, DataConfig], tmp_path: Path, tiny_config: PipelineConfig
) -> None:
    victim, config = coco
    with make_context(tmp_path, tiny_config) as context:
        result = prepare.run(context, replace(config, on_bad_image="skip"))
    ((image_id, reason),) = result.record.notes["splits"]["train"]["bad"]
    assert image_id == victim.stem
    assert "truncated" in reason
    assert result.record.metrics["num_skipped"] == 1
    assert prepare.open_prepared(result).num_images("train") == 23


def test_weights_of_another_architecture_end_before_training_starts(
    ray_cluster: None, tmp_path: Path, tiny_config: PipelineConfig
) -> None:
    weights = tmp_path / "other.pt"
    torch.save({"conv1.weight": torch.zeros(3)}, weights)
    backbone = replace(tiny_config.encoder.backbone, weights=str(weights))
    config = replace(tiny_config, encoder=replace(tiny_config.encoder, backbone=backbone))
    with make_context(tmp_path, tiny_config) as context:
        data = prepare.open_prepared(prepare.run(context, tiny_config.data))
        with pytest.raises(ConfigError, match=rf"{weights} are for another architecture"):
            train_encoder(context, config, data)


def test_a_checkpoint_of_other_classes_is_refused(tmp_path: Path) -> None:
    from slams_ray.networks.checkpoint import load_network

    architecture = {
        "backbone_name": "tiny_resnet",
        "output_stride": 8,
        "num_classes": 2,
        "head": "deeplabv2",
    }
    data = dump_network(
        SegmentationNetwork(**architecture), architecture, ["background", "cat", "dog"]
    )
    with pytest.raises(ArtifactError, match="trained for 3 classes"):
        load_network(data, "model.pt", "segmentation_network", ["background", "cat"])


def test_predict_writes_masks_and_leaves_out_what_is_no_image(tmp_path: Path) -> None:
    from PIL import Image

    architecture = {
        "backbone_name": "tiny_resnet",
        "output_stride": 8,
        "num_classes": 2,
        "head": "deeplabv2",
    }
    model = tmp_path / "model.pt"
    network = SegmentationNetwork(**architecture)
    model.write_bytes(dump_network(network, architecture, ["background", "cat", "dog"]))
    photos = tmp_path / "photos"
    photos.mkdir()
    Image.new("L", (50, 40), 90).save(photos / "gray.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera lay on its side
    Image.new("RGB", (640, 480), (10, 200, 30)).save(photos / "green.jpg", exif=exif)
    (photos / "broken.jpg").write_bytes(b"not an image")
    output = tmp_path / "masks"
    num_written = predict.run(
        str(model),
        str(photos),
        str(output),
        scales=(1.0,),
        flip=True,
        precision="float32",
        max_side_px=64,
    )
    assert num_written == 2
    assert sorted(p.name for p in output.iterdir()) == [
        "gray.png",
        "gray_overlay.jpg",
        "green.png",
        "green_overlay.jpg",
        "written",
    ]
    mask = Image.open(output / "gray.png")
    assert (mask.mode, mask.size) == ("P", (50, 40))
    assert Image.open(output / "green.png").size == (480, 640)


def test_predict_names_a_model_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"summary.json"):
        find_model(str(tmp_path))


@pytest.mark.long
def test_a_truncated_image_shard_is_named_by_the_training_that_reads_it(
    ray_cluster: None, tmp_path: Path, tiny_config: PipelineConfig
) -> None:
    with make_context(tmp_path, tiny_config) as context:
        data = prepare.open_prepared(prepare.run(context, tiny_config.data))
        shard = Path(data.images("train")) / data.names("train")[1]
        shard.write_bytes(shard.read_bytes()[:-100])
        with pytest.raises(TrainingError, match=rf"{shard} is missing or truncated"):
            train_encoder(context, tiny_config, data)
    (told,) = (tmp_path / "train_encoder").rglob("error.txt")
    assert "in _train" in told.read_text(), "the training worker's traceback"
    assert "in read_row_groups" in told.read_text(), "that of its data-loading task"


def test_a_relative_weights_file_is_found_by_workers_and_named_by_its_content(
    tmp_path: Path, tiny_config: PipelineConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    body = build_backbone("tiny_resnet", 8).body
    torch.save(body.state_dict(), "weights.pt")
    backbone = replace(tiny_config.encoder.backbone, weights="weights.pt")
    config = replace(tiny_config, encoder=replace(tiny_config.encoder, backbone=backbone))
    found = with_absolute_paths(config).encoder.backbone
    assert found.weights == str(tmp_path / "weights.pt")
    moved = tmp_path / "elsewhere.pt"
    moved.write_bytes((tmp_path / "weights.pt").read_bytes())
    assert backbone_settings(found)["weights"].startswith("sha256:")
    assert backbone_settings(replace(found, weights=str(moved))) == backbone_settings(found)


@pytest.mark.parametrize("system", sorted(GIVEN_WEIGHTS))
def test_weights_of_the_user_are_found_by_workers_and_named_by_their_content(
    system: str, tmp_path: Path, tiny_config: PipelineConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("weights.pt").write_bytes(b"weights")
    Path("others.pt").write_bytes(b"others")
    own = getattr(tiny_config, system)

    def settings(path: str) -> dict[str, Any]:
        config = replace(tiny_config, **{system: replace(own, weights=path)})
        found = getattr(with_absolute_paths(config), system)
        assert found.weights == str(tmp_path / path)
        return network_settings(found)

    first = settings("weights.pt")
    assert first["weights"].startswith("sha256:")
    Path("weights.pt").rename("moved.pt")
    assert settings("moved.pt") == first
    assert settings("others.pt") != first


def test_splits_with_other_classes_are_refused(
    ray_cluster: None, tmp_path: Path, tiny_config: PipelineConfig
) -> None:
    root = Path(generate(tiny_config.data, str(tmp_path)))
    annotations = root / "annotations" / "instances_val.json"
    annotations.write_text(annotations.read_text().replace('"sheep"', '"zebra"'))
    with (
        make_context(tmp_path, tiny_config) as context,
        pytest.raises(DataError, match="sheep, zebra"),
    ):
        prepare.run(context, DataConfig(format="coco", root=str(root)))
