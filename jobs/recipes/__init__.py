"""Recipes: which settings go together. A recipe's docstring promises hardware, time and score."""

from collections.abc import Callable

from jobs.recipes.coco14 import coco14
from jobs.recipes.demo import demo
from jobs.recipes.folder import folder
from jobs.recipes.smoke import smoke
from jobs.recipes.voc12 import voc12
from slams_ray.config import PipelineConfig

RECIPES: dict[str, Callable[[], PipelineConfig]] = {
    "demo": demo,
    "smoke": smoke,
    "folder": folder,
    "voc12": voc12,
    "coco14": coco14,
}
