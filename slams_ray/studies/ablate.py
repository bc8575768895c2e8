"""What each part of the method pays: one setting changed at a time, over seeds, by seed mIoU."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any

from slams_ray.artifacts import fingerprint, to_plain
from slams_ray.config import PipelineConfig
from slams_ray.config.overrides import override
from slams_ray.core.comparison import Score
from slams_ray.errors import ConfigError, TrainingError
from slams_ray.mappers.infer import CAM, SLAMS
from slams_ray.runtime import cluster
from slams_ray.runtime.sweep import run_points
from slams_ray.stages import (
    pipeline,
    prepare,
    search_threshold,
    train_activation,
    train_encoder,
)
from slams_ray.studies.scores import collect, publish

NAME = "ablate"
RECIPE = "as the recipe"

_LOSSES = "activation.losses"
VARIANTS: dict[str, dict[str, Any]] = {
    RECIPE: {},
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
    "filled with companions": {"activation.fill": "companion"},
    "normalised masks filled with companions": {
        "activation.mask": "normalised",
        "activation.fill": "companion",
    },
    "encoder without masked images": {"encoder.masked_fraction": 0.0},
    "encoder without dimmed images": {"encoder.dimmed_fraction": 0.0},
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
) -> list[Score]:
    """Trains every variant in a trial of Ray Tune and writes `<workspace>/ablate.json`.

    Args:
        variants: names of `VARIANTS`; none means all.
        max_concurrent: trials at the same time; None takes what the cluster's nodes or GPUs allow.

    Raises:
        ConfigError: there is no such variant.
        TrainingError: trials failed; the others are in the table, the same command tries again.
    """
    chosen = [RECIPE, *(name for name in variants or VARIANTS if name != RECIPE)]
    unknown = [name for name in chosen if name not in VARIANTS]
    if unknown:
        raise ConfigError(f"there is no variant {unknown[0]!r}: choose from {', '.join(VARIANTS)}")
    with pipeline.open_session(config, workspace, f"{NAME} {recipe}") as session:
        place = pipeline.workplace(config, session)
        # Before the trials ask for them side by side.
        data = prepare.open_prepared(prepare.run(place, config.data))
        for seed in seeds:
            train_encoder.run(place, config.encoder, seed, data)
            train_activation.train_classifier(place, config.classifier, seed, data)
        parent = session.open()
        points = {
            f"{name}, seed {seed}": {"variant": name, "seed": seed}
            for seed in seeds
            for name in chosen
        }
        limit = max_concurrent or cluster.num_trainings(
            config.compute.train_workers, config.compute.device
        )
        study = {"config": to_plain(config), "points": list(points)}
        trials = run_points(
            partial(run_variant, config, workspace, recipe, parent.run_id),
            points,
            f"{workspace}/{NAME}",
            fingerprint(NAME, study, {}),
            limit,
        )
        scores = [Score(**row) for trial in trials.values() for row in trial.result or ()]
        scores = list({(s.method, s.seed, s.metric): s for s in scores}.values())
        publish(scores, workspace, NAME, parent, [CAM, *chosen])
        failed = [label for label, trial in trials.items() if trial.error]
        if failed:
            raise TrainingError(
                f"{len(failed)} of {len(trials)} trials failed ({'; '.join(failed)}): their errors "
                "are above, and the same command tries them again"
            )
        return scores


def run_variant(
    config: PipelineConfig,
    workspace: str,
    recipe: str,
    parent_id: str | None,
    point: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """The rows of one variant, and of CAM beside it, up to the threshold curve."""
    name, seed = point["variant"], point["seed"]
    varied = replace(override(config, VARIANTS[name]), seed=seed)
    title = f"{recipe} {name}, seed {seed}"
    with pipeline.open_session(varied, workspace, title, parent_id) as session:
        place = pipeline.workplace(varied, session)
        results = pipeline.run_stages(varied, place, search_threshold.STAGE)
        scores = collect(results, SLAMS, seed, name) + collect(results, CAM, seed)
        if session.parent is not None:
            session.parent.log_metrics({f"{s.method}/{s.metric}": s.value for s in scores})
        return [asdict(score) for score in scores]
