"""Systems that build on the CAM classifier: what they need, and what they refuse."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from slams_ray.config.pipeline import GIVEN_WEIGHTS
from slams_ray.errors import ArtifactError, ConfigError
from slams_ray.networks.activation_network import ActivationNetwork
from slams_ray.networks.checkpoint import dump_network
from slams_ray.recipes import RECIPES
from slams_ray.systems.registry import trainings_of
from slams_ray.systems.system import NetworkTraining
from tests.tiny_tasks import TRAINED_SYSTEMS

Make = Callable[..., Any]
PEERS = sorted(set(TRAINED_SYSTEMS) - {"cam", "slams", "mctformer"})


@pytest.mark.parametrize("name", PEERS)
def test_a_classifier_of_other_classes_or_in_another_order_is_refused(
    name: str, make_system_task: Make
) -> None:
    task = make_system_task(name)
    names = ["background", "green", "red", "blue"]
    network = task.trained_classifier()
    task.classifier = dump_network(network, task.classifier_architecture, names)
    with pytest.raises(ArtifactError, match=r"trained for 4 classes \(background, green"):
        task.build()


@pytest.mark.parametrize("name", PEERS)
def test_a_classifier_of_another_architecture_is_refused(name: str, make_system_task: Make) -> None:
    task = make_system_task(name)
    other = {"backbone_name": "resnet18", "output_stride": 16, "num_classes": 3}
    task.classifier = dump_network(ActivationNetwork(**other), other, task.class_names)
    with pytest.raises(ConfigError, match=r"another architecture .* same classifier\.backbone"):
        task.build()


@pytest.mark.parametrize("name", [name for name in PEERS if name not in ("recam", "clims")])
def test_without_the_classifier_training_starts_from_the_weights_of_the_backbone(
    name: str, make_system_task: Make, tmp_path: Path
) -> None:
    task = make_system_task(name, initialise_from_cam=False)
    torch.manual_seed(5)
    backbone = ActivationNetwork(**task.classifier_architecture).backbone
    torch.save(backbone.body.state_dict(), tmp_path / "backbone.pth")
    task.backbone = replace(task.backbone, weights=str(tmp_path / "backbone.pth"))
    found = task.build().network.backbone.state_dict()
    assert all(torch.equal(value, found[key]) for key, value in backbone.state_dict().items())


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("name", PEERS)
def test_every_recipe_gives_a_system_the_backbone_and_the_budget_of_its_classifier(
    name: str, recipe: str
) -> None:
    config = RECIPES[recipe]()
    if name in GIVEN_WEIGHTS:
        config = replace(config, **{name: replace(getattr(config, name), weights="given")})
    config = replace(config, system=name, baselines=("cam",))
    own, classifier = getattr(config, name), config.classifier
    (training,) = (t for t in trainings_of(config) if t.stage == f"train_{name}")
    assert isinstance(training, NetworkTraining)
    assert training.backbone.name == classifier.backbone.name
    assert training.backbone.freeze_batch_norm
    for setting in ("epochs", "batch_size", "long_side_px"):
        assert getattr(own.training, setting) == getattr(classifier.training, setting)
    assert 0 <= own.training.crop_px - classifier.training.crop_px < 32
    if classifier.backbone.weights == "none":
        assert getattr(own, "initialise_from_cam", True)
