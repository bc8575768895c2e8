"""Recipes: settings that belong together. A docstring states data, hardware and measurements."""

from collections.abc import Callable

from slams_ray.config import PipelineConfig
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
