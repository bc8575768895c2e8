"""Pipeline: runs the stages in order, and writes their summary."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

from slams_ray.artifacts import fingerprint, flatten, to_plain
from slams_ray.config import (
    ActivationInferenceConfig,
    CrfConfig,
    PipelineConfig,
    SegmentationConfig,
)
from slams_ray.errors import ConfigError
from slams_ray.runtime.session import TrackingSession
from slams_ray.runtime.workspace_lock import workspace_lock
from slams_ray.stages import (
    evaluate,
    infer_activation,
    prepare,
    refine,
    search_refinement,
    search_threshold,
    train_segmentation,
    train_systems,
)
from slams_ray.stages.precision import resolved
from slams_ray.stages.prepare import PreparedData
from slams_ray.stages.stage import Result, StageContext
from slams_ray.stages.summary import publish, summarise
from slams_ray.stages.train_systems import MapNetwork, map_networks
from slams_ray.stages.training import with_absolute_weights
from slams_ray.systems.registry import trainings_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class PipelineResult:
    """Results of the finished stages by name, in order, and their summary.

    Some stages are missing if the pipeline was asked to stop early.
    """

    results: dict[str, Result]
    summary: dict[str, Any]


def run(
    config: PipelineConfig, workspace: str, recipe: str, until: str | None = None
) -> PipelineResult:
    """Runs the stages up to `until`, or all stages. Finished stages are kept.

    Writes `<workspace>/summary.json` once all stages have run.

    Raises:
        ConfigError: another driver works in the workspace.
    """
    with workspace_lock(workspace, recipe), open_session(config, workspace, recipe) as session:
        context = make_context(config, session)
        results = run_stages(config, context, until)
        summary = summarise(config, results, workspace, recipe)
        if evaluate.STAGE in results:
            publish(context, config, results, summary)
        return PipelineResult(results=results, summary=summary)


def open_session(
    config: PipelineConfig, workspace: str, name: str, group: str | None = None
) -> TrackingSession:
    """Opens the tracked run of a pipeline. A rerun with the same name and settings continues it.

    Args:
        group: id of the parent run, or None.
    """
    settings = {k: v for k, v in to_plain(config).items() if k not in ("compute", "tracking")}
    return TrackingSession(
        workspace,
        config.tracking.experiment,
        name,
        fingerprint(name, settings, {} if group is None else {"group": group}),
        flatten(to_plain(config)),
        group,
    )


def make_context(config: PipelineConfig, session: TrackingSession) -> StageContext:
    """Returns the context in which the stages of a pipeline run."""
    return StageContext(
        workspace=session.workspace,
        compute=config.compute,
        tracking=config.tracking,
        session=session,
    )


class PipelineRun:
    """Finished stages of a pipeline, and the inputs that later stages derive from them.

    Attributes:
        results: finished stages by name, in order.
    """

    def __init__(self, config: PipelineConfig, context: StageContext) -> None:
        self.config = with_absolute_weights(config)
        self.context = context
        self.results: dict[str, Result] = {}

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
    def _choice(self) -> search_refinement.Choice | None:
        """What a finished search chose; None if there is none."""
        found = self.results.get(search_refinement.STAGE)
        return None if found is None else search_refinement.choice(found, self.config.crf)

    @property
    def inference(self) -> ActivationInferenceConfig:
        """Settings of map inference, with the scales that a finished search chose."""
        configured, choice = self._configured_inference, self._choice
        return configured if choice is None else replace(configured, scales=choice.scales)

    @property
    def crf(self) -> CrfConfig:
        """Settings of refinement, with those that a finished search chose."""
        choice = self._choice
        return self.config.crf if choice is None else choice.crf

    @property
    def searched_threshold(self) -> float | None:
        """Background threshold that a finished search chose; None if there is none."""
        choice = self._choice
        return None if choice is None else choice.background_threshold

    @cached_property
    def segmentation(self) -> SegmentationConfig:
        config = self.config.segmentation
        return replace(config, inference=resolved(config.inference, self.context.compute))


Step = tuple[str, Callable[[PipelineRun], Result]]


def steps(config: PipelineConfig) -> list[Step]:
    """Returns name and work of each stage, in order.

    A search is followed by the stages of maps and threshold. If it chose other scales, they run
    again; otherwise their outputs are kept.
    """
    maps: list[Step] = [
        (infer_activation.STAGE, _infer),
        (search_threshold.STAGE, _search_threshold),
    ]
    search: list[Step] = [(search_refinement.STAGE, _search_refinement), *maps]
    return [
        (prepare.STAGE, lambda run: prepare.run(run.context, run.config.data)),
        *((training.stage, partial(_train, training.stage)) for training in trainings_of(config)),
        *maps,
        *(search if config.search.num_samples else []),
        (refine.STAGE, _refine),
        (train_segmentation.STAGE, _train_segmentation),
        (evaluate.STAGE, _evaluate),
    ]


def stage_names(config: PipelineConfig) -> list[str]:
    """Returns the names of the stages of a pipeline, in order and without repetition."""
    return list(dict.fromkeys(name for name, _ in steps(config)))


def run_stages(
    config: PipelineConfig, context: StageContext, until: str | None = None
) -> dict[str, Result]:
    """Runs the stages in order. Finished stages are kept.

    Args:
        until: the last stage to run; None runs all.

    Raises:
        ConfigError: the pipeline has no such stage.
    """
    names = [name for name, _ in steps(config)]
    if until is not None and until not in names:
        raise ConfigError(
            f"the pipeline has no stage {until!r}, expected one of {', '.join(stage_names(config))}"
        )
    run = PipelineRun(config, context)
    last = len(names) if until is None else len(names) - names[::-1].index(until)
    for name, work in steps(config)[:last]:
        run.results[name] = work(run)
    return run.results


def _train(stage: str, run: PipelineRun) -> Result:
    training = next(t for t in trainings_of(run.config) if t.stage == stage)
    return train_systems.run(run.context, training, run.config.seed, run.data, run.results)


def _infer(run: PipelineRun) -> Result:
    return infer_activation.run(run.context, run.inference, run.data, run.networks)


def _search_threshold(run: PipelineRun) -> Result:
    activations = run.results[infer_activation.STAGE]
    config = run.config
    return search_threshold.run(
        run.context, config.threshold, run.data, activations, config.systems
    )


def _search_refinement(run: PipelineRun) -> Result:
    config = run.config
    upstream = search_refinement.Upstream(
        data=run.data,
        system=config.system,
        network=run.networks[config.system],
        activations=run.results[infer_activation.STAGE],
        threshold=run.results[search_threshold.STAGE],
    )
    return search_refinement.run(run.context, config.search, config.crf, run.inference, upstream)


def _refine(run: PipelineRun) -> Result:
    inputs = refine.RefineInputs(
        data=run.data,
        activations=run.results[infer_activation.STAGE],
        threshold=run.results[search_threshold.STAGE],
        system=run.config.system,
        background_threshold=run.searched_threshold,
    )
    return refine.run(run.context, run.crf, inputs)


def _train_segmentation(run: PipelineRun) -> Result:
    refined = run.results[refine.STAGE]
    return train_segmentation.run(run.context, run.segmentation, run.config.seed, run.data, refined)


def _evaluate(run: PipelineRun) -> Result:
    network = run.results[train_segmentation.STAGE]
    return evaluate.run(run.context, run.segmentation, run.data, network)
