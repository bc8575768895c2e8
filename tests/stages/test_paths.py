"""Paths in the settings."""

from pathlib import Path

import pytest

from slams_ray.config import PipelineConfig
from slams_ray.config.overrides import override
from slams_ray.errors import ConfigError
from slams_ray.recipes import RECIPES
from slams_ray.stages.paths import check_weights, with_absolute_paths
from slams_ray.stages.steps import stage_names

PATHS = {
    "data.root": "photos",
    "data.train_list": "train.txt",
    "data.val_list": "val.txt",
    "data.score_list": "lists/score.txt",
    "imported.maps": "maps",
    "imported.labels": "labels",
    "classifier.backbone.weights": "resnet.pth",
    "encoder.backbone.weights": "resnet.pth",
    "segmentation.backbone.weights": "resnet.pth",
    "clims.weights": "clip.pt",
    "clip_es.weights": "clip.pt",
    "mctformer.weights": "deit.pth",
}


def value_at(config: object, path: str) -> object:
    for name in path.split("."):
        config = getattr(config, name)
    return config


def test_every_path_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = with_absolute_paths(override(RECIPES["folder"](), PATHS))
    assert {name: value_at(config, name) for name in PATHS} == {
        name: str(tmp_path / path) for name, path in PATHS.items()
    }
    assert with_absolute_paths(config) == config


def test_what_is_no_path_stays(tiny_config: PipelineConfig) -> None:
    assert with_absolute_paths(tiny_config) == tiny_config
    photos = override(RECIPES["folder"](), {"data.root": "s3://bucket/photos"})
    assert with_absolute_paths(photos) == photos


@pytest.mark.parametrize("name", ["classifier", "encoder", "segmentation"])
def test_a_missing_file_of_weights_is_named(name: str, tmp_path: Path) -> None:
    setting = f"{name}.backbone.weights"
    config = override(RECIPES["folder"](), {setting: str(tmp_path / "none.pth")})
    with pytest.raises(ConfigError, match=rf"{setting} names .*none\.pth, which is not a file"):
        check_weights(config, stage_names(config))
    check_weights(config, ["prepare"])
    (tmp_path / "none.pth").touch()
    check_weights(config, stage_names(config))


@pytest.mark.parametrize(
    ("system", "network"), [("cam", "encoder"), ("masks", "classifier"), ("masks", "encoder")]
)
def test_weights_of_a_network_that_is_not_trained_may_be_missing(system: str, network: str) -> None:
    changes = {"system": system, f"{network}.backbone.weights": "/none.pth"}
    config = override(RECIPES["folder"](), changes)
    check_weights(config, stage_names(config))
