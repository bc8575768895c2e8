from pathlib import Path

import pytest

from slams_ray.artifacts import flatten, to_plain
from slams_ray.config import CrfConfig, PipelineConfig
from slams_ray.config.overrides import override
from slams_ray.errors import ConfigError
from slams_ray.recipes import RECIPES
from slams_ray.studies.variants import RECIPE, VARIANTS


def test_named_places_change_and_nothing_else(tiny_config: PipelineConfig) -> None:
    changed = override(tiny_config, {"activation.losses.foreground": 0.0, "seed": 3})
    assert changed.activation.losses.foreground == 0
    assert changed.seed == 3
    back = override(changed, {"activation.losses.foreground": 1.0, "seed": tiny_config.seed})
    assert back == tiny_config


@pytest.mark.parametrize("path", ["crf.beta", "crf.alpha.beta", "lattice", "crf."])
def test_an_unknown_place_is_named(tiny_config: PipelineConfig, path: str) -> None:
    with pytest.raises(ConfigError, match=f"no setting {path}"):
        override(tiny_config, {path: 1})


@pytest.mark.parametrize(
    ("setting", "value", "expected"),
    [
        ("walk.beta", 3, 3.0),
        ("inference.scales", [1, 2], (1.0, 2.0)),
        ("data.root", Path("photos"), "photos"),
        ("crf.iterations", "5", 5),
        ("walk.beta", "1e1", 10.0),
    ],
)
def test_values_get_the_type_of_their_setting(
    tiny_config: PipelineConfig, setting: str, value: object, expected: object
) -> None:
    section, name = setting.split(".")
    found = getattr(getattr(override(tiny_config, {setting: value}), section), name)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("crf.iterations", 2.5, "crf.iterations is 2.5: .*integer"),
        ("crf.form", "hard", "crf.form is 'hard': .*'label', 'constant' or 'power'"),
        ("seed", None, "seed is None: expected a valid integer"),
        ("seed", True, "seed is True: expected a valid integer"),
        ("crf.iterations", "many", "crf.iterations is 'many': expected a valid integer"),
        ("inference.scales", 1.0, "inference.scales is 1.0: expected a list"),
        ("refinement.steps", {"walk", "crf"}, "refinement.steps is .*: expected a list"),
        ("segmentation", {"lern_masks": True}, "no setting segmentation.lern_masks"),
        ("crf", "full", "crf is 'full', expected a mapping of its settings"),
        ("data.rot", "photos", "there is no setting data.rot: .*did you mean root"),
        ("activation.training.learning_rate", -1.0, "^activation.training.learning_rate: "),
        ("crf", {"iterations": "x"}, "crf.iterations is 'x': expected a valid integer"),
    ],
)
def test_a_value_of_another_type_is_refused(
    tiny_config: PipelineConfig, setting: str, value: object, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        override(tiny_config, {setting: value})


def test_settings_that_are_no_mapping_are_refused(tiny_config: PipelineConfig) -> None:
    with pytest.raises(ConfigError, match="expected a mapping"):
        override(tiny_config, [("seed", 1)])


def test_a_section_keeps_what_is_not_named(tiny_config: PipelineConfig) -> None:
    nested = {"segmentation": {"training": {"epochs": 3}, "averaging": "batch"}}
    dotted = {"segmentation.training.epochs": 3.0, "segmentation.averaging": "batch"}
    assert override(tiny_config, nested) == override(tiny_config, dotted)
    crf = CrfConfig(iterations=2)
    assert override(tiny_config, {"crf": crf}).crf == crf


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_settings_of_a_recipe_are_of_their_types(recipe: str) -> None:
    config = RECIPES[recipe]()
    assert override(config, flatten(to_plain(config))) == config


def test_values_are_checked(tiny_config: PipelineConfig) -> None:
    with pytest.raises(ConfigError, match=r"crf\.iterations"):
        override(tiny_config, {"crf.iterations": -1})


def test_a_variant_changes_what_is_not_so_already(
    tiny_config: PipelineConfig,
) -> None:
    varied = {name: override(tiny_config, values) for name, values in VARIANTS.items()}
    assert varied.pop(RECIPE) == tiny_config
    # Of every either-or the configuration is one.
    same = {name for name, config in varied.items() if config == tiny_config}
    assert same == {
        "foreground loss",
        "equivariance",
        "sigmoid masks",
        "no soft binarisation of masks",
        "filled with grey",
        "no pseudo labels",
        "initialised from CAM",
    }
