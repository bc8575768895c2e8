"""What a comparison runs: systems and refinements as pipelines.

It imports neither torch nor Ray, so that a dry run takes no time.
"""

from dataclasses import dataclass, replace
from typing import get_args

from slams_ray.config import PipelineConfig, RefinementConfig
from slams_ray.config.pipeline import LABEL_SOURCES, MapSystem, SystemName
from slams_ray.errors import ConfigError

NONE = "none"
"""Refinement without steps: labels are the thresholded maps."""


@dataclass(frozen=True, kw_only=True)
class Rows:
    """What is compared.

    Attributes:
        systems: names of systems, the baseline first.
        refinements: refinements between maps and labels, their steps joined by +, or `NONE`.
        until: the last stage to run, such as refine for no segmentation networks.
    """

    systems: tuple[SystemName, ...]
    refinements: tuple[str, ...]
    until: str

    @classmethod
    def of(cls, config: PipelineConfig, until: str) -> "Rows":
        """Returns the systems and the refinement of a recipe."""
        refinement = "+".join(config.refinement.steps) or NONE
        return cls(systems=config.systems, refinements=(refinement,), until=until)

    def pipelines(self, config: PipelineConfig) -> list[tuple[str, PipelineConfig]]:
        """Returns the pipelines of one random seed, each with the name of its refinement.

        Raises:
            ConfigError: a refinement is unknown.
        """
        maps: list[MapSystem] = [s for s in self.systems if s not in LABEL_SOURCES]  # type: ignore[misc]
        # The order of systems stays the same, so all pipelines of a seed share their maps.
        return [
            (
                refinement if has_maps else "",
                replace(
                    config,
                    system=system,
                    baselines=tuple(maps),
                    refinement=parse_refinement(refinement),
                ),
            )
            for system in self.systems
            for has_maps in (system not in LABEL_SOURCES,)
            for refinement in (self.refinements if has_maps else self.refinements[:1])
        ]


def parse_refinement(name: str) -> RefinementConfig:
    """Parses the steps of a refinement, such as walk+crf; `NONE` has no step.

    Raises:
        ConfigError: a step is unknown, repeated, or in the wrong place.
    """
    known = get_args(get_args(RefinementConfig.__annotations__["steps"])[0])
    steps = [] if name == NONE else name.split("+")
    if NONE in steps:
        raise ConfigError(f"the refinement is {name!r}, expected {NONE} alone or steps without it")
    unknown = [step for step in steps if step not in known]
    if unknown:
        raise ConfigError(
            f"there is no refinement {unknown[0]!r}: join some of {', '.join(known)} by +, or name "
            f"{NONE}"
        )
    return RefinementConfig(steps=tuple(steps))  # type: ignore[arg-type]
