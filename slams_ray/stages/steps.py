"""Steps of a pipeline: each stage works on the outputs of those before it."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from slams_ray.config import PipelineConfig
from slams_ray.stages import (
    evaluate,
    import_files,
    infer_activation,
    outputs,
    pixel_labels,
    prepare,
    refine,
    refine_maps,
    search_refinement,
    search_threshold,
    train_affinity,
    train_segmentation,
    train_systems,
)
from slams_ray.stages.map_sets import Walks
from slams_ray.stages.pipeline_run import PipelineRun, teacher_prefix
from slams_ray.stages.stage import Result
from slams_ray.systems.registry import SYSTEMS, trainings_of
from slams_ray.systems.system import NetworkStage

Step = tuple[str, Callable[[PipelineRun], Result]]


def steps(config: PipelineConfig) -> list[Step]:
    """Returns name and work of each stage, in order.

    A search is followed by the stages of maps and threshold. If it chose other scales, they run
    again; otherwise their outputs are kept.
    """
    network: list[Step] = [
        (train_segmentation.STAGE, _train_segmentation),
        (evaluate.STAGE, _evaluate),
    ]
    if not config.has_maps:
        return [(prepare.STAGE, _prepare), (import_files.LABELS_STAGE, _import_labels), *network]
    has_networks = any(SYSTEMS[name].map_stage for name in config.systems)
    imports = import_files.SYSTEM in config.systems
    maps: list[Step] = [
        *([(infer_activation.STAGE, _infer)] if has_networks else []),
        *([(import_files.MAPS_STAGE, _import_maps)] if imports else []),
        (search_threshold.STAGE, _search_threshold),
    ]
    search: list[Step] = [
        *(AFFINITY_STEPS if "walk" in config.refinement.steps else []),
        (search_refinement.STAGE, _search_refinement),
        *maps,
    ]
    refined: list[Step] = [
        *(step for name in config.refinement.map_steps for step in _map_steps(name)),
        (refine.STAGE, _refine),
    ]
    return [
        (prepare.STAGE, _prepare),
        *(
            step
            for training in trainings_of(config)
            for step in _training_steps(training, config.teacher, refined)
        ),
        *maps,
        *(search if config.search.num_samples else []),
        *refined,
        *network,
    ]


def _training_steps(
    training: NetworkStage, teacher: str | None, refined: Sequence[Step]
) -> list[Step]:
    """Returns a training after the stages that make the pixel labels it needs.

    Args:
        teacher: system whose pseudo labels another system learns.
        refined: stages from maps to pseudo labels.
    """
    labels: list[Step] = []
    if training.pixel_labels == "confident":
        labels = pixel_labels.STEPS
    elif training.pixel_labels == "pseudo":
        assert teacher is not None
        prefix = teacher_prefix(teacher)
        works = [
            (infer_activation.STAGE, _infer),
            (search_threshold.STAGE, _search_threshold),
            *refined,
        ]
        labels = [(prefix + name, partial(_work_on_teacher, name, work)) for name, work in works]
    return [*labels, (training.stage, partial(_train, training.stage))]


def _work_on_teacher(name: str, work: Callable[[PipelineRun], Result], run: PipelineRun) -> Result:
    result = work(run.teacher)
    run.teacher.results[name] = result
    return result


def groups(config: PipelineConfig, of: Sequence[Step]) -> list[list[Step]]:
    """Puts consecutive trainings that need nothing of each other into one group.

    Returns:
        the steps in the same order. Every other step has a group of its own.
    """
    needs = {training.stage: set(training.needs) for training in trainings_of(config)}
    found: list[list[Step]] = []
    for step in of:
        group = {name for name, _ in found[-1]} if found else set()
        if group and {step[0], *group} <= needs.keys() and not needs[step[0]] & group:
            found[-1].append(step)
        else:
            found.append([step])
    return found


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


def _prepare(run: PipelineRun) -> Result:
    return prepare.run(run.context, run.config.data, run.config.segmentation.learn_masks)


def _import_maps(run: PipelineRun) -> Result:
    return import_files.import_maps(
        run.context,
        run.data,
        str(run.config.imported.maps),
        run.results.get(infer_activation.STAGE),
        tuple(run.networks),
    )


def _import_labels(run: PipelineRun) -> Result:
    directory = None if run.config.system == "masks" else str(run.config.imported.labels)
    return import_files.import_labels(run.context, run.data, directory)


def _train(stage: str, run: PipelineRun) -> Result:
    return training_of(stage, run).run(run.context)


def training_of(stage: str, run: PipelineRun) -> train_systems.SystemTraining:
    """Returns the training of a network of the systems, whose inputs are finished."""
    found = next(t for t in trainings_of(run.config) if t.stage == stage)
    labels = None
    if found.pixel_labels == "confident":
        labels = pixel_labels.confident(run.config, run.results)
    elif found.pixel_labels == "pseudo":
        labels = pixel_labels.of_stage(run.teacher.results[refine.STAGE])
    return train_systems.SystemTraining(
        stage=found,
        seed=run.config.seed,
        data=run.data,
        needed={name: run.results[name] for name in found.needs},
        labels=labels,
    )


def _infer(run: PipelineRun) -> Result:
    labels = pixel_labels.confident(run.config, run.results)
    return infer_activation.run(run.context, run.inference, run.data, run.networks, labels)


def _search_threshold(run: PipelineRun) -> Result:
    config = run.config
    return search_threshold.run(
        run.context, config.threshold, run.data, outputs.seed_maps(run.results), config.systems
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
        run.context,
        config.threshold,
        run.data,
        outputs.refined_maps(run.results),
        config.systems,
        refined,
    )


def _label_affinity(run: PipelineRun) -> Result:
    # Not with the threshold of a search: it chose its walk on the edges learnt from these labels.
    inputs = replace(_refine_inputs(run), background_threshold=None)
    config, stage = run.config, train_affinity.LABELS_STAGE
    return refine.run_confident(run.context, config.crf, inputs, config.affinity, stage)


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
        activations=outputs.refined_maps(run.results),
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
        activations=outputs.refined_maps(run.results),
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
    return train_segmentation.run(
        run.context, run.segmentation, run.config.seed, run.data, outputs.labels(run.results)
    )


def _evaluate(run: PipelineRun) -> Result:
    network = run.results[train_segmentation.STAGE]
    return evaluate.run(run.context, run.segmentation, run.data, network)


AFFINITY_STEPS: list[Step] = [
    (train_affinity.LABELS_STAGE, _label_affinity),
    (train_affinity.STAGE, _train_affinity),
]
"""What the walk needs: confident labels, and the edge network that learns from them."""
