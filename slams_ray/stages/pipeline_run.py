"""Finished stages of a pipeline, and the settings that follow from them."""

from dataclasses import replace
from functools import cached_property

from slams_ray.config import (
    ActivationInferenceConfig,
    CrfConfig,
    PipelineConfig,
    SegmentationConfig,
    WalkConfig,
)
from slams_ray.stages import prepare, search_choice, search_refinement, search_threshold
from slams_ray.stages.map_sets import walk_sets
from slams_ray.stages.paths import with_absolute_paths
from slams_ray.stages.precision import resolved
from slams_ray.stages.prepare import PreparedData
from slams_ray.stages.stage import Result, StageContext
from slams_ray.stages.train_systems import MapNetwork, map_networks
from slams_ray.systems.registry import trainings_of


def teacher_prefix(teacher: str) -> str:
    """Returns the prefix of the stages that make pseudo labels for another system."""
    return f"{teacher}_"


class PipelineRun:
    """Finished stages of a pipeline, and the inputs that later stages derive from them.

    Attributes:
        results: finished stages by name, in order.
    """

    def __init__(self, config: PipelineConfig, context: StageContext) -> None:
        self.config = with_absolute_paths(config)
        self.context = context
        self.results: dict[str, Result] = {}

    @cached_property
    def teacher(self) -> "PipelineRun":
        """The pipeline of the system whose pseudo labels another system learns."""
        name = self.config.teacher
        assert name is not None
        search = replace(self.config.search, num_samples=0)
        # The maps of CAM guide a threshold without masks, and its classifier the walk.
        config = replace(self.config, system=name, baselines=("cam",), search=search)
        run = PipelineRun(config, replace(self.context, prefix=teacher_prefix(name)))
        trained = [training.stage for training in trainings_of(config)]
        run.results = {name: self.results[name] for name in (prepare.STAGE, *trained)}
        return run

    @cached_property
    def data(self) -> PreparedData:
        return prepare.open_prepared(self.results[prepare.STAGE])

    @property
    def networks(self) -> dict[str, MapNetwork]:
        return map_networks(self.config, self.results)

    @cached_property
    def _configured_inference(self) -> ActivationInferenceConfig:
        return resolved(self.config.inference, self.context.compute)

    @property
    def _choice(self) -> search_choice.Choice | None:
        """What a finished search chose; None if there is none."""
        found = self.results.get(search_refinement.STAGE)
        if found is None:
            return None
        walks = walk_sets(self.config.search, self.config.walk) if self.has_walk else {}
        return search_choice.choice(found, self.config.crf, walks)

    @property
    def has_walk(self) -> bool:
        """Whether the maps walk."""
        return "walk" in self.config.refinement.steps

    @property
    def walk(self) -> WalkConfig:
        """Settings of the walk, with those that a finished search chose."""
        choice = self._choice
        return self.config.walk if choice is None or choice.walk is None else choice.walk

    @property
    def inference(self) -> ActivationInferenceConfig:
        """Settings of map inference, with the scales that a finished search chose."""
        configured, choice = self._configured_inference, self._choice
        return configured if choice is None else replace(configured, scales=choice.scales)

    @property
    def crf(self) -> CrfConfig:
        """Settings of the CRF, with those that a finished search chose."""
        choice = self._choice
        return self.config.crf if choice is None else choice.crf

    @property
    def threshold(self) -> Result:
        """Choice of a threshold for these maps."""
        chosen = [s for s in self.results if s.startswith(search_threshold.STAGE)]
        return self.results[chosen[-1]]

    @property
    def searched_threshold(self) -> float | None:
        """Background threshold that a finished search chose; None if there is none."""
        choice = self._choice
        return None if choice is None else choice.background_threshold

    @cached_property
    def segmentation(self) -> SegmentationConfig:
        config = self.config.segmentation
        return replace(config, inference=resolved(config.inference, self.context.compute))
