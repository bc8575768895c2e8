"""Recipes: settings that belong together. A docstring states data, hardware and measurements."""

from collections.abc import Callable
from difflib import get_close_matches

from slams_ray.config import PipelineConfig
from slams_ray.errors import ConfigError
from slams_ray.recipes.coco14 import coco14
from slams_ray.recipes.demo import demo
from slams_ray.recipes.folder import folder
from slams_ray.recipes.smoke import smoke
from slams_ray.recipes.voc12 import voc12

RECIPES: dict[str, Callable[[], PipelineConfig]] = {
    "demo": demo,
    "smoke": smoke,
    "folder": folder,
    "voc12": voc12,
    "coco14": coco14,
}


def check_recipe(name: str) -> None:
    """Raises ConfigError if there is no recipe of this name."""
    if name not in RECIPES:
        near = get_close_matches(name, RECIPES, 1)
        guess = f": did you mean {near[0]}?" if near else ""
        raise ConfigError(
            f"there is no recipe {name!r}, expected one of {', '.join(RECIPES)}{guess}"
        )


def recipe_of_file(name: str | None, path: str) -> str:
    """Returns the recipe that a configuration file names; raises ConfigError if it names none."""
    if name not in RECIPES:
        raise ConfigError(
            f"{path} names the recipe {name!r}, expected one of {', '.join(RECIPES)}: add a line "
            "such as recipe: folder"
        )
    return name
