"""Variants of an ablation: which are run, and which would be another once more."""

import pytest

from slams_ray.config.overrides import override
from slams_ray.errors import ConfigError
from slams_ray.recipes import RECIPES
from slams_ray.studies.variants import RECIPE, VARIANTS, choose


@pytest.mark.parametrize("recipe", sorted(RECIPES))
def test_no_two_variants_have_the_same_settings(recipe: str) -> None:
    config = RECIPES[recipe]()
    chosen = [override(config, VARIANTS[name]) for name in choose(config)]
    assert chosen[0] == config
    assert all(chosen.index(varied) == place for place, varied in enumerate(chosen))
    for name in VARIANTS:
        assert override(config, VARIANTS[name]) in chosen, name


def test_a_variant_that_is_another_is_named_and_left_out(caplog: pytest.LogCaptureFixture) -> None:
    config = override(RECIPES["smoke"](), {"activation.fill": "image"})
    variants = ["normalised masks", "normalised masks filled with other images", "log form"]
    assert choose(config, variants) == [RECIPE, "normalised masks", "log form"]
    (record,) = caplog.records
    assert record.getMessage() == (
        "'normalised masks filled with other images' is left out, because with these settings it "
        "is 'normalised masks'"
    )


def test_another_system_has_no_variants() -> None:
    config = override(RECIPES["smoke"](), {"system": "cam"})
    with pytest.raises(ConfigError, match="system is 'cam', expected 'slams'"):
        choose(config)
