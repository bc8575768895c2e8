"""What each part of the method pays: one setting changed at a time, over seeds, by seed mIoU."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from slams_ray import storage
from slams_ray.artifacts import fingerprint, to_plain
from slams_ray.config import PipelineConfig
from slams_ray.config.overrides import override
from slams_ray.data.stored_maps import CAM, METHODS, SLAMS
from slams_ray.errors import ConfigError
from slams_ray.runtime import cluster
from slams_ray.runtime.search import search
from slams_ray.runtime.search_space import SearchSpace
from slams_ray.runtime.trial_plan import SearchPlan, SearchTrial
from slams_ray.runtime.workspace_lock import workspace_lock
from slams_ray.stages import (
    pipeline,
    prepare,
    search_threshold,
    train_activation,
    train_encoder,
)
from slams_ray.studies.comparison import Score
from slams_ray.studies.scores import PRIMARY, Show, collect, finish, no_show

NAME = "ablate"
RECIPE = "as the recipe"
TRIAL_CPUS = 0.01

_LOSSES = "activation.losses"
VARIANTS: dict[str, dict[str, Any]] = {
    RECIPE: {},
    "foreground loss": {f"{_LOSSES}.foreground": 1.0},
    "no foreground loss": {f"{_LOSSES}.foreground": 0.0},
    "no background loss": {f"{_LOSSES}.background": 0.0},
    "no regularization": {f"{_LOSSES}.regularization": 0.0},
    "no consistency": {f"{_LOSSES}.equivariance": 0.0, f"{_LOSSES}.complementation": 0.0},
    "equivariance": {f"{_LOSSES}.equivariance": 1.0, f"{_LOSSES}.complementation": 0.0},
    "complementation": {f"{_LOSSES}.equivariance": 0.0, f"{_LOSSES}.complementation": 1.0},
    "no classification loss": {f"{_LOSSES}.classification": 0.0},
    "log form": {f"{_LOSSES}.form": "log"},
    "sigmoid masks": {"activation.mask": "sigmoid"},
    "normalised masks": {"activation.mask": "normalised"},
    "filled with grey": {"activation.fill": "grey"},
    "filled with other images": {"activation.fill": "image"},
    "normalised masks filled with other images": {
        "activation.mask": "normalised",
        "activation.fill": "image",
    },
    "masks cut": {"activation.cut_width": 0.1},
    "masks not cut": {"activation.cut_width": 0.0},
    "encoder without masked images": {"encoder.masked_fraction": 0.0},
    "encoder without dimmed images": {"encoder.dimmed_fraction": 0.0},
    "initialised from CAM": {"activation.initialise_from_cam": True},
    "not initialised from CAM": {"activation.initialise_from_cam": False},
}
"""Name -> settings that differ from the recipe."""


def run(
    config: PipelineConfig,
    workspace: str,
    recipe: str,
    seeds: Sequence[int],
    variants: Sequence[str] = (),
    max_concurrent: int | None = None,
    show: Show = no_show,
) -> list[Score]:
    """Trains every variant in a trial of Ray Tune and writes `<workspace>/ablate.json`.

    Args:
        variants: names of `VARIANTS`; none means all. Those that the recipe is are left out.
        max_concurrent: trials at the same time; None takes what the cluster's nodes or GPUs allow.
        show: called with the scores, before a failure is raised.

    Raises:
        ConfigError: there is no such variant, or another driver works in the workspace.
        TrainingError: trials failed; the others are in the table, the same command tries again.
    """
    unknown = [name for name in variants if name not in VARIANTS]
    if unknown:
        raise ConfigError(f"there is no variant {unknown[0]!r}: choose from {', '.join(VARIANTS)}")
    # Those the recipe is already would be trained beside it into the same directory.
    others = [name for name in variants or VARIANTS if override(config, VARIANTS[name]) != config]
    chosen = [RECIPE, *others]
    name = f"{NAME} {recipe}"
    with (
        workspace_lock(workspace, name),
        pipeline.open_session(config, workspace, name) as session,
    ):
        place = pipeline.workplace(config, session)
        # Before the trials ask for them side by side.
        data = prepare.open_prepared(prepare.run(place, config.data))
        for seed in seeds:
            train_encoder.run(place, config.encoder, seed, data)
            train_activation.train_classifier(place, config.classifier, seed, data)
        parent = session.open()
        space: dict[str, Sequence[Any]] = {"variant": chosen, "seed": list(seeds)}
        trials = search(
            partial(run_variant, config, workspace, recipe, parent.run_id),
            SearchSpace(space),
            SearchPlan(
                algorithm="grid",
                num_samples=1,
                metric=f"{SLAMS}/{PRIMARY}",
                num_reports=1,
                feedback_delay=1,
                max_concurrent=max_concurrent
                or cluster.num_trainings(config.compute.train_workers, config.compute.device),
                cpus_per_trial=TRIAL_CPUS,
                time_budget_seconds=None,
                seed=0,
            ),
            storage.join(
                workspace, NAME, fingerprint(NAME, {"config": to_plain(config), "space": space}, {})
            ),
            _label,
        )
        scores = _scores(trials)
        failed = [_label(trial.point) for trial in trials if trial.error]
        order = [CAM, *chosen]
        finish(scores, workspace, NAME, parent, order, show, failed, len(trials))
        return scores


def run_variant(
    config: PipelineConfig,
    workspace: str,
    recipe: str,
    parent_id: str | None,
    point: Mapping[str, Any],
) -> Iterator[dict[str, float]]:
    """One report: the scores of a variant, and of CAM beside it, as method/metric."""
    varied = replace(override(config, VARIANTS[point["variant"]]), seed=point["seed"])
    with pipeline.open_session(
        varied, workspace, f"{recipe} {_label(point)}", parent_id
    ) as session:
        place = pipeline.workplace(varied, session)
        results = pipeline.run_stages(varied, place, search_threshold.STAGE)
        scores = [score for method in METHODS for score in collect(results, method, varied.seed)]
        report = {f"{score.method}/{score.metric}": score.value for score in scores}
        if session.parent is not None:
            session.parent.log_metrics(report)
    yield report


def _label(point: Mapping[str, Any]) -> str:
    return f"{point['variant']}, seed {point['seed']}"


def _scores(trials: Sequence[SearchTrial]) -> list[Score]:
    """Rows of every variant under its name, and of CAM once per seed."""
    scores: dict[tuple[str, int, str], Score] = {}
    for trial in trials:
        for name, value in (trial.history[-1] if trial.history else {}).items():
            method, metric = name.split("/")
            title = trial.point["variant"] if method == SLAMS else method
            seed = trial.point["seed"]
            scores[title, seed, metric] = Score(method=title, seed=seed, metric=metric, value=value)
    return list(scores.values())
