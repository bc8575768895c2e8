"""Compares systems under one protocol, over random seeds.

All systems share data, backbone, crops, scales and the way of choosing a threshold. Each system has
its own threshold, its own refinement and its own segmentation network.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

from slams_ray import storage
from slams_ray.config import PipelineConfig
from slams_ray.runtime.workspace_lock import workspace_lock
from slams_ray.stages import evaluate, pipeline, prepare
from slams_ray.studies.comparison import Score
from slams_ray.studies.scores import PRIMARY, Show, Study, collect, finish, no_show
from slams_ray.studies.trials import Point, run_grid, to_report, to_scores
from slams_ray.systems.registry import titles

NAME = "compare"


def run(
    config: PipelineConfig,
    workspace: str,
    recipe: str,
    seeds: Sequence[int],
    max_concurrent: int | None = None,
    show: Show = no_show,
) -> list[Score]:
    """Runs each random seed in a trial of its own, and writes `<workspace>/compare.json`.

    Finished stages are kept.

    Args:
        seeds: random seeds.
        max_concurrent: number of seeds at the same time; None means as many as the cluster's nodes
            or GPUs allow.
        show: called with the scores, before an error is raised.

    Raises:
        ConfigError: another driver works in the workspace.
        TrainingError: some seeds failed. The table holds the others, and the same command tries
            the failed ones again.
    """
    name = f"{NAME} {recipe}"
    with (
        workspace_lock(workspace, name),
        pipeline.open_session(config, workspace, name) as session,
    ):
        # Data is prepared once, before concurrent trials need it.
        prepare.run(pipeline.make_context(config, session), config.data)
        parent = session.open()
        parent.set_tags({"slams.budget": budget(config)})
        trials = run_grid(
            partial(run_seed, config, workspace, recipe, parent.run_id),
            {"seed": list(seeds)},
            config,
            storage.join(workspace, NAME),
            _label,
            f"{config.system}/{PRIMARY}",
            max_concurrent,
        )
        scores = [
            score
            for trial in trials
            if trial.history
            for score in to_scores(trial.history[-1], trial.point["seed"])
        ]
        failed = [_label(trial.point) for trial in trials if trial.error]
        names = titles(config.systems)
        study = Study(workspace=workspace, name=NAME, run=parent, titles=names)
        finish(study, scores, show, failed, len(trials))
        return scores


def _label(point: Point) -> str:
    return f"seed {point['seed']}"


def budget(config: PipelineConfig) -> str:
    """Returns the number of epochs of each network, as a sentence."""
    encoder, classifier, activation, segmentation = (
        f"{part.training.epochs:g}"
        for part in (config.encoder, config.classifier, config.activation, config.segmentation)
    )
    start = f"{classifier} (classifier) + " if config.activation.initialise_from_cam else ""
    return (
        f"cam {classifier} (classifier); slams {start}{encoder} (encoder) + {activation} "
        f"(activation network); after either {segmentation} (segmentation network)"
    )


def run_seed(
    config: PipelineConfig, workspace: str, recipe: str, parent_id: str | None, point: Point
) -> Iterator[dict[str, float]]:
    """Yields one report with the scores of every system. Shared stages run once."""
    config = replace(config, seed=point["seed"])
    name = f"{recipe} seed {config.seed}"
    with pipeline.open_session(config, workspace, name, parent_id) as session:
        context = pipeline.make_context(config, session)
        scores = []
        for system in config.systems:
            # The order of systems stays the same, so all pipelines of a seed share their maps.
            own = replace(config, system=system, baselines=config.systems)
            results = pipeline.run_stages(own, context, evaluate.STAGE)
            scores += collect(results, system, config.seed)
        report = to_report(scores)
        if session.parent is not None:
            session.parent.log_metrics(report)
    yield report
