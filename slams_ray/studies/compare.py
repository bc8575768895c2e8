"""Compares systems and refinements under one protocol, over random seeds.

All systems share data, backbone, crops, scales and the way of choosing a threshold. Each system has
its own threshold; each pair of system and refinement has its own segmentation network. A stage that
several of them need runs once.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

from slams_ray import storage
from slams_ray.config import PipelineConfig
from slams_ray.runtime.workspace_lock import workspace_lock
from slams_ray.stages import evaluate, import_files, pipeline, prepare
from slams_ray.stages.paths import check_data, with_absolute_paths
from slams_ray.stages.steps import stage_names
from slams_ray.studies.comparison import Score
from slams_ray.studies.rows import Rows
from slams_ray.studies.scores import Show, Study, collect, finish, no_show
from slams_ray.studies.trials import Point, of_trial, run_grid, to_report, to_scores
from slams_ray.systems.registry import titles

NAME = "compare"


def run(
    config: PipelineConfig,
    workspace: str,
    recipe: str,
    seeds: Sequence[int],
    rows: Rows | None = None,
    max_concurrent: int | None = None,
    show: Show = no_show,
) -> list[Score]:
    """Runs each random seed in a trial of its own, and writes `<workspace>/compare.json`.

    Finished stages are kept.

    Args:
        seeds: random seeds.
        rows: systems and refinements; None takes those of the recipe.
        max_concurrent: number of seeds at the same time; None means as many as the cluster's nodes
            or GPUs allow.
        show: called with the scores, before an error is raised.

    Raises:
        ConfigError: a refinement is unknown, or another driver works in the workspace.
        TrainingError: some seeds failed. The table holds the others, and the same command tries
            the failed ones again.
    """
    rows = rows or Rows.of(config, evaluate.STAGE)
    config = with_absolute_paths(config)
    check_data(config)
    for _, own in rows.pipelines(config):
        pipeline.check_stage(own, last_stage(own, rows.until))
    _, config = rows.pipelines(config)[-1]
    name = f"{NAME} {recipe}"
    with (
        workspace_lock(workspace, name),
        pipeline.open_session(config, workspace, name) as session,
    ):
        # Data is prepared once, before concurrent trials need it.
        context = pipeline.make_context(config, session)
        prepare.run(context, config.data, config.segmentation.learn_masks)
        parent = session.open()
        trials = run_grid(
            partial(run_seed, config, workspace, recipe, rows, parent.run_id),
            {"seed": list(seeds)},
            config,
            storage.join(workspace, NAME, "_".join((*rows.systems, *rows.refinements, rows.until))),
            _label,
            max_concurrent,
        )
        scores = [
            score
            for trial in trials
            if trial.history
            for score in to_scores(trial.history[-1], trial.point["seed"])
        ]
        failed = [_label(trial.point) for trial in trials if trial.error]
        names = titles(rows.systems)
        study = Study(workspace=workspace, name=NAME, run=parent, titles=names)
        finish(study, scores, show, failed, len(trials))
        return scores


def last_stage(config: PipelineConfig, until: str) -> str:
    """Returns the last stage of a row: that of the study, or the labels of a row without maps."""
    if config.has_maps or until in stage_names(config):
        return until
    of_maps = stage_names(replace(config, system="cam"))
    return import_files.LABELS_STAGE if until in of_maps else until


def _label(point: Point) -> str:
    return f"seed {point['seed']}"


def run_seed(
    config: PipelineConfig,
    workspace: str,
    recipe: str,
    rows: Rows,
    parent_id: str | None,
    point: Point,
) -> Iterator[dict[str, float]]:
    """Yields one report with the scores of every system and refinement."""
    config = of_trial(config, point["seed"])
    name = f"{recipe} seed {config.seed}"
    with pipeline.open_session(config, workspace, name, parent_id) as session:
        scores: dict[Score, None] = {}
        for refinement, own in rows.pipelines(config):
            context = pipeline.make_context(own, session)
            results = pipeline.run_stages(own, context, last_stage(own, rows.until))
            # Scores of seeds do not depend on the refinement, and come once.
            scores |= dict.fromkeys(collect(results, own, refinement))
        report = to_report(list(scores))
        if session.parent is not None:
            session.parent.log_metrics({k.replace("+", "_"): v for k, v in report.items()})
    yield report
