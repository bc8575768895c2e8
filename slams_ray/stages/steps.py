"""Steps of a pipeline: each stage works on the outputs of those before it."""

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property, partial

from slams_ray.config import (
    ActivationInferenceConfig,
    CrfConfig,
    PipelineConfig,
    SegmentationConfig,
    WalkConfig,
)
from slams_ray.stages import (
    evaluate,
    infer_activation,
    pixel_labels,
    prepare,
    refine,
    refine_maps,
    search_choice,
    search_refinement,
    search_threshold,
    train_affinity,
    train_segmentation,
    train_systems,
)
from slams_ray.stages.map_sets import Walks, walk_sets
from slams_ray.stages.precision import resolved
from slams_ray.stages.prepare import PreparedData
from slams_ray.stages.stage import Result, StageContext
from slams_ray.stages.train_systems import MapNetwork, map_networks
from slams_ray.stages.training import with_absolute_weights
from slams_ray.systems.registry import trainings_of
from slams_ray.systems.system import NetworkTraining


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
    def activations(self) -> Result:
        """Maps after the last refinement of maps."""
        refined = refine_maps.refined_maps(self.results)
        return self.results[infer_activation.STAGE] if refined is None else refined

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
    search: list[Step] = [
        *(AFFINITY_STEPS if "walk" in config.refinement.steps else []),
        (search_refinement.STAGE, _search_refinement),
        *maps,
    ]
    return [
        (prepare.STAGE, lambda run: prepare.run(run.context, run.config.data)),
        *(step for training in trainings_of(config) for step in _training_steps(training)),
        *maps,
        *(search if config.search.num_samples else []),
        *(step for name in config.refinement.map_steps for step in _map_steps(name)),
        (refine.STAGE, _refine),
        (train_segmentation.STAGE, _train_segmentation),
        (evaluate.STAGE, _evaluate),
    ]


def _training_steps(training: NetworkTraining) -> list[Step]:
    labels = pixel_labels.STEPS if training.needs_pixel_labels else []
    return [*labels, (training.stage, partial(_train, training.stage))]


def _map_steps(name: str) -> list[Step]:
    """Returns a refinement of maps, the stages it needs, and the choice of a threshold."""
    return [
        *(AFFINITY_STEPS if name == "walk" else []),
        (refine_maps.STAGES[name], _propagate if name == "walk" else _adapt),
        (f"{search_threshold.STAGE}_{name}", partial(_search_refined_threshold, name)),
    ]


def stage_names(config: PipelineConfig) -> list[str]:
    """Returns the names of the stages of a pipeline, in order and without repetition."""
    return list(dict.fromkeys(name for name, _ in steps(config)))


def _train(stage: str, run: PipelineRun) -> Result:
    training = next(t for t in trainings_of(run.config) if t.stage == stage)
    needs = training.needs_pixel_labels
    labels = pixel_labels.pixel_labels(run.config, run.results) if needs else None
    return train_systems.run(run.context, training, run.config.seed, run.data, run.results, labels)


def _infer(run: PipelineRun) -> Result:
    labels = pixel_labels.pixel_labels(run.config, run.results)
    return infer_activation.run(run.context, run.inference, run.data, run.networks, labels)


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
        walks=_walks(run) if run.has_walk else None,
    )
    return search_refinement.run(run.context, config.search, config.crf, run.inference, upstream)


def _walks(run: PipelineRun) -> Walks:
    return Walks(
        edges=run.results[train_affinity.STAGE],
        class_names=run.data.description.class_names,
        configured=run.config.walk,
        config=run.config.search,
    )


def _search_refined_threshold(name: str, run: PipelineRun) -> Result:
    config = run.config
    refined = search_threshold.Refined(step=name, system=config.system)
    return search_threshold.run(
        run.context, config.threshold, run.data, run.activations, config.systems, refined
    )


def _label_affinity(run: PipelineRun) -> Result:
    # A search must not change these labels: it chose its walk on the edges learnt from them.
    affinity, inputs = run.config.affinity, replace(_refine_inputs(run), background_threshold=None)
    margins = replace(
        run.config.crf,
        foreground_margin=affinity.margin,
        background_margin=affinity.margin,
        export="none",
    )
    pair = inputs.pair(margins)
    if affinity.pair is not None and margins.form != "power":
        background, foreground = affinity.pair
        pair = replace(pair, background=background, foreground=foreground)
    return refine.run(run.context, margins, inputs, train_affinity.LABELS_STAGE, pair)


def _train_affinity(run: PipelineRun) -> Result:
    config = run.config
    return train_affinity.run(
        run.context,
        config.affinity,
        config.classifier.backbone,
        config.seed,
        run.data,
        run.results[train_affinity.LABELS_STAGE],
        run.results.get("train_classifier"),
    )


def _map_inputs(run: PipelineRun) -> refine_maps.MapInputs:
    config = run.config
    return refine_maps.MapInputs(
        data=run.data,
        activations=run.activations,
        system=config.system,
        systems=config.systems,
    )


def _propagate(run: PipelineRun) -> Result:
    edges = run.results[train_affinity.STAGE]
    return refine_maps.propagate(run.context, run.walk, _map_inputs(run), edges)


def _adapt(run: PipelineRun) -> Result:
    return refine_maps.adapt(run.context, run.config.pixel_adaptive, _map_inputs(run))


def _refine_inputs(run: PipelineRun) -> refine.RefineInputs:
    searched = set(run.config.refinement.map_steps) <= {"walk"}
    return refine.RefineInputs(
        data=run.data,
        activations=run.activations,
        threshold=run.threshold,
        system=run.config.system,
        # A search scores maps as inferred or after the walk, and no others.
        background_threshold=run.searched_threshold if searched else None,
    )


def _refine(run: PipelineRun) -> Result:
    has_crf = "crf" in run.config.refinement.steps
    crf = run.crf if has_crf else replace(run.crf, form="label", iterations=0)
    return refine.run(run.context, crf, _refine_inputs(run))


def _train_segmentation(run: PipelineRun) -> Result:
    refined = run.results[refine.STAGE]
    return train_segmentation.run(run.context, run.segmentation, run.config.seed, run.data, refined)


def _evaluate(run: PipelineRun) -> Result:
    network = run.results[train_segmentation.STAGE]
    return evaluate.run(run.context, run.segmentation, run.data, network)


AFFINITY_STEPS: list[Step] = [
    (train_affinity.LABELS_STAGE, _label_affinity),
    (train_affinity.STAGE, _train_affinity),
]
"""What the walk needs: confident labels, and the edge network that learns from them."""
