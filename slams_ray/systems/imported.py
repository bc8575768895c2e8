"""Maps and labels that no network of the pipeline makes."""

from slams_ray.config import PipelineConfig
from slams_ray.systems.system import NetworkTraining, System


def _no_trainings(config: PipelineConfig) -> list[NetworkTraining]:
    return []


SYSTEMS = tuple(
    System(name=name, title=title, map_stage=None, trainings=_no_trainings)
    for name, title in (
        ("imported", "imported maps"),
        ("imported_labels", "imported labels"),
        ("masks", "ground-truth masks"),
    )
)
