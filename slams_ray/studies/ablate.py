"""Ablation: changes one part of the method at a time, and compares seed mIoU."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

from slams_ray import storage
from slams_ray.config import PipelineConfig
from slams_ray.config.overrides import override
from slams_ray.runtime.trial_plan import SearchTrial
from slams_ray.runtime.workspace_lock import workspace_lock
from slams_ray.stages import pipeline, search_threshold
from slams_ray.stages.paths import check_data, with_absolute_paths
from slams_ray.studies.comparison import Score
from slams_ray.studies.scores import Show, Study, collect, finish, no_show
from slams_ray.studies.trials import Point, of_trial, run_grid, to_report, to_scores
from slams_ray.studies.variants import VARIANTS, choose
from slams_ray.systems.registry import titles

NAME = "ablate"


def run(
    config: PipelineConfig,
    workspace: str,
    recipe: str,
    seeds: Sequence[int],
    variants: Sequence[str] = (),
    max_concurrent: int | None = None,
    show: Show = no_show,
) -> list[Score]:
    """Trains each variant in a trial of its own, and writes `<workspace>/ablate.json`.

    Args:
        seeds: random seeds.
        variants: see `choose`.
        max_concurrent: number of trials at the same time; None means as many as the cluster's
            nodes or GPUs allow.
        show: called with the scores, before an error is raised.

    Raises:
        ConfigError: there is no such variant, or another driver works in the workspace.
        TrainingError: some trials failed. The table holds the others, and the same command tries
            the failed ones again.
    """
    config = with_absolute_paths(config)
    check_data(config)
    chosen = choose(config, variants)
    name = f"{NAME} {recipe}"
    with (
        workspace_lock(workspace, name),
        pipeline.open_session(config, workspace, name) as session,
    ):
        context = pipeline.make_context(config, session)
        # Stages that variants share run here once, before concurrent trials need them.
        for seed in seeds:
            pipeline.run_stages(replace(config, seed=seed), context, search_threshold.STAGE)
        parent = session.open()
        trials = run_grid(
            partial(run_variant, config, workspace, recipe, parent.run_id),
            {"variant": chosen, "seed": list(seeds)},
            config,
            storage.join(workspace, NAME),
            _label,
            max_concurrent,
        )
        scores = _scores(trials, config.system)
        failed = [_label(trial.point) for trial in trials if trial.error]
        names = titles(config.baselines) | {variant: variant for variant in chosen}
        study = Study(workspace=workspace, name=NAME, run=parent, titles=names)
        finish(study, scores, show, failed, len(trials))
        return scores


def run_variant(
    config: PipelineConfig, workspace: str, recipe: str, parent_id: str | None, point: Point
) -> Iterator[dict[str, float]]:
    """Yields one report with the scores of a variant and of the baselines."""
    varied = of_trial(override(config, VARIANTS[point["variant"]]), point["seed"])
    name = f"{recipe} {_label(point)}"
    with pipeline.open_session(varied, workspace, name, parent_id) as session:
        context = pipeline.make_context(varied, session)
        results = pipeline.run_stages(varied, context, search_threshold.STAGE)
        scores = [
            score
            for system in varied.systems
            for score in collect(results, replace(varied, system=system))
        ]
        report = to_report(scores)
        if session.parent is not None:
            session.parent.log_metrics(report)
    yield report


def _label(point: Point) -> str:
    return f"{point['variant']}, seed {point['seed']}"


def _scores(trials: Sequence[SearchTrial], system: str) -> list[Score]:
    """Returns the scores of variants, and those of each baseline once per random seed."""
    scores: dict[tuple[str, int, str], Score] = {}
    for trial in trials:
        for score in to_scores(trial.history[-1] if trial.history else {}, trial.point["seed"]):
            method = trial.point["variant"] if score.method == system else score.method
            scores[method, score.seed, score.metric] = replace(score, method=method)
    return list(scores.values())
