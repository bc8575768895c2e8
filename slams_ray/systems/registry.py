"""Registry of the systems, by name."""

from collections.abc import Iterable, Mapping

from slams_ray.config import PipelineConfig
from slams_ray.systems import (
    amn,
    cam,
    clims,
    clip_es,
    cpn,
    imported,
    mctformer,
    occse,
    puzzle,
    recam,
    seam,
)
from slams_ray.systems.slams import system as slams
from slams_ray.systems.system import NetworkStage, System

_ALL = (cam, slams, recam, occse, puzzle, seam, cpn, amn, clims, clip_es, mctformer)
SYSTEMS: Mapping[str, System] = {
    system.name: system for system in (*(module.SYSTEM for module in _ALL), *imported.SYSTEMS)
}

BASELINE = cam.SYSTEM.name
"""Name of the system that others are compared with. Its maps also guide the choice of a threshold
when there are no masks."""


def titles(names: Iterable[str]) -> dict[str, str]:
    """Returns name -> title for the given systems."""
    return {name: SYSTEMS[name].title for name in names}


def trainings_of(config: PipelineConfig, names: Iterable[str] | None = None) -> list[NetworkStage]:
    """Returns the networks that systems train, in order and without repetition.

    Args:
        names: some systems; None takes all of the pipeline.
    """
    chosen = config.systems if names is None else names
    found = {t.stage: t for name in chosen for t in _trainings(config, name)}
    return list(found.values())


def _trainings(config: PipelineConfig, name: str) -> list[NetworkStage]:
    """Returns the networks of a system, after those of the pipeline whose labels it learns."""
    teacher = config.teacher if name == slams.SYSTEM.name else None
    needed = [name] if teacher is None else [BASELINE, teacher, name]
    return [training for system in needed for training in SYSTEMS[system].trainings(config)]
