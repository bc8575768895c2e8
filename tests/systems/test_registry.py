"""What a pipeline trains follows from its systems."""

from dataclasses import replace
from typing import get_args

import pytest

from slams_ray.config.pipeline import SystemName
from slams_ray.recipes.smoke import smoke
from slams_ray.stages.steps import stage_names
from slams_ray.systems.registry import BASELINE, SYSTEMS, titles, trainings_of


def test_settings_name_every_system_and_no_other() -> None:
    assert set(get_args(SystemName)) == set(SYSTEMS)
    assert BASELINE in SYSTEMS


@pytest.mark.parametrize("start", [True, False])
def test_a_network_comes_after_those_it_is_built_from_and_is_trained_once(start: bool) -> None:
    config = smoke()
    config = replace(config, activation=replace(config.activation, initialise_from_cam=start))
    trainings = trainings_of(config)
    stages = [training.stage for training in trainings]
    assert sorted(stages) == ["train_activation", "train_classifier", "train_encoder"]
    for position, training in enumerate(trainings):
        assert set(training.needs) <= set(stages[:position])
    needs = {training.stage: set(training.needs) for training in trainings}
    assert ("train_classifier" in needs["train_activation"]) is start


def test_a_pipeline_trains_the_networks_of_its_systems_alone() -> None:
    alone = replace(smoke(), system="cam")
    assert alone.systems == ("cam",)
    assert not {"train_encoder", "train_activation"} & set(stage_names(alone))
    assert smoke().systems == ("cam", "slams")
    assert titles(smoke().systems) == {"cam": "CAM", "slams": "SLAMs"}


def test_the_maps_of_every_system_come_from_a_network_that_it_trains() -> None:
    for name, system in SYSTEMS.items():
        stages = [training.stage for training in system.trainings(smoke())]
        assert stages[-1:] == ([] if system.map_stage is None else [system.map_stage]), name
