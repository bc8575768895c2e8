"""Stage search_refinement: trials with the CRF in the loop, on images set aside for it.

Half of the images scored here choose, the other half tell how well the choice holds; both numbers
stand in search.json beside those of the configured refinement, whose threshold is chosen on the
same half. `refine` then uses what was chosen.

Slices, maps and trials lie in a directory that searches share which differ in the number of trials
or in time alone: a search with more trials extends an earlier one.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from slams_ray import storage
from slams_ray.artifacts import fingerprint, to_plain
from slams_ray.config import ActivationInferenceConfig, CrfConfig, SearchConfig
from slams_ray.config.search import name_of_scales, scales_of
from slams_ray.data.source import TRAIN
from slams_ray.data.stored_maps import SLAMS
from slams_ray.errors import TrainingError
from slams_ray.refinement.pseudo_label import Confidence, has_effect
from slams_ray.runtime.search import search
from slams_ray.runtime.search_space import SearchSpace
from slams_ray.runtime.trial_plan import SearchPlan, SearchTrial
from slams_ray.stages.prepare import PreparedData
from slams_ray.stages.refine import make_refinement, refiners
from slams_ray.stages.search_report import Findings, track_trials, write_findings
from slams_ray.stages.settings_report import show_settings
from slams_ray.stages.slices import ScoredSlices, infer_maps, scale_sets, write_slices
from slams_ray.stages.stage import Attempt, Outcome, Result, Workplace, run_stage
from slams_ray.stages.train_activation import ActivationNetworks
from slams_ray.stages.trials import (
    OBJECTIVE,
    Evaluator,
    held_out_scores,
    score_slices,
    split_point,
)

STAGE = "search_refinement"
TRIALS = "search_trials"
"""Directory of a workspace for what searches share."""
SEARCH_NAME = "search.json"
SPACE = (
    "form",
    "iterations",
    "gt_prob",
    "cam_power",
    "gaussian_compat",
    "gaussian_sxy_px",
    "bilateral_compat",
    "bilateral_sxy_px",
    "bilateral_srgb",
)
"""Fields of SearchConfig that list values of the CrfConfig field of the same name; those that
decide whether others have an effect come first."""
CONFIDENCE = ("lenient", "chosen", "strict")
_NO_RESULT = ("max_concurrent", "cpus_per_trial")
_NO_TRIAL = ("num_samples", "time_budget_seconds")
"""Settings that change which trials there are, and no trial."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What a finished search chose.

    Attributes:
        strength: background threshold; None where alpha, part of the CRF settings, takes its place.
        scales: of inference.
    """

    crf: CrfConfig
    strength: float | None
    scales: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Material:
    """What a search works on."""

    data: PreparedData
    networks: ActivationNetworks
    activations: Result
    threshold: Result


def run(
    place: Workplace,
    config: SearchConfig,
    crf: CrfConfig,
    inference: ActivationInferenceConfig,
    material: Material,
) -> Result:
    settings = {k: v for k, v in to_plain(config).items() if k not in _NO_RESULT}
    settings |= {"crf": to_plain(crf)}
    inputs = {
        "prepare": material.data.scores_digest(TRAIN),
        "infer_activation": material.activations.record.fingerprint,
        "search_threshold": material.threshold.record.fingerprint,
    }
    shared = fingerprint(TRIALS, {k: v for k, v in settings.items() if k not in _NO_TRIAL}, inputs)
    work = partial(_work, place, config, crf, inference, material, shared)
    return run_stage(place, STAGE, settings, inputs, work)


def choice(result: Result, crf: CrfConfig) -> Choice:
    """What refinement and inference become by a finished search."""
    best = json.loads(storage.read_bytes(result.path(SEARCH_NAME)))["best"]
    confidence = Confidence(**{name: best[name] for name in CONFIDENCE})
    scales, settings = split_point(best["point"])
    chosen, strength = apply_point(crf, settings, confidence)
    return Choice(crf=chosen, strength=strength, scales=scales_of(scales))


def apply_point(
    crf: CrfConfig, settings: Mapping[str, Any], confidence: Confidence
) -> tuple[CrfConfig, float | None]:
    """CRF settings, and the threshold; None where the strength became their alpha."""
    chosen = replace(crf, **settings)
    if chosen.form == "power":
        pair = (confidence.strict, confidence.lenient)
        return replace(chosen, alpha=confidence.chosen, alpha_pair=pair), None
    margins = replace(
        chosen,
        foreground_margin=confidence.strict - confidence.chosen,
        background_margin=confidence.chosen - confidence.lenient,
    )
    return margins, confidence.chosen


def _work(
    place: Workplace,
    config: SearchConfig,
    crf: CrfConfig,
    inference: ActivationInferenceConfig,
    material: Material,
    shared: str,
    attempt: Attempt,
) -> Outcome:
    directory = storage.join(place.workspace, TRIALS, shared)
    at = replace(attempt, output_dir=directory, fingerprint=shared)
    slices = _prepare_slices(place, config, inference, material, at)
    space = search_space(config, inference)
    trials = _run_trials(place, config, crf, slices, space)
    best = best_trial(trials, config.num_slices)
    last = best.history[-1]
    evaluator = Evaluator(slices=slices, attempt=attempt, pool=refiners(crf, place.compute))
    scores = {
        "searched_miou": last[OBJECTIVE],
        "searched_confident_miou": last["confident_miou"],
        "searched_ignored_fraction": last["ignored_fraction"],
    } | held_out_scores(
        config, crf, name_of_scales(inference.scales), best.point, last["chosen"], evaluator
    )
    chosen = {"trial": best.trial_id, "point": best.point} | {n: last[n] for n in CONFIDENCE}
    path = storage.join(attempt.output_dir, SEARCH_NAME)
    write_findings(path, Findings(slices=slices, scores=scores, best=chosen, trials=trials))
    attempt.run.log_file(path)
    _show(place, crf, material, best, attempt)
    track_trials(attempt, trials, chosen, [n for n, values in space.values.items() if values[1:]])
    return Outcome(
        num_rows=slices.num_searched + slices.num_held_out,
        metrics=scores,
        notes={"best": chosen, "shared_directory": directory},
    )


def search_space(config: SearchConfig, inference: ActivationInferenceConfig) -> SearchSpace:
    """What a trial may be; settings that have no effect in it are no part of it."""
    values = {"scales": scale_sets(config, inference)}
    return SearchSpace(values | {name: getattr(config, name) for name in SPACE}, has_effect)


def _prepare_slices(
    place: Workplace,
    config: SearchConfig,
    inference: ActivationInferenceConfig,
    material: Material,
    at: Attempt,
) -> ScoredSlices:
    """Writes the slices and their maps at all scales."""
    data = material.data
    slices = write_slices(config, inference, data, material.activations, at.output_dir)
    for scales in scale_sets(config, inference):
        if scales != name_of_scales(inference.scales):
            infer_maps(scales, inference, slices, data, material.networks, place, at)
    return slices


def _run_trials(
    place: Workplace,
    config: SearchConfig,
    crf: CrfConfig,
    slices: ScoredSlices,
    space: SearchSpace,
) -> list[SearchTrial]:
    plan = SearchPlan(
        algorithm=config.algorithm,
        num_samples=config.num_samples,
        metric=OBJECTIVE,
        num_reports=config.num_slices,
        feedback_delay=config.feedback_delay,
        max_concurrent=config.max_concurrent,
        cpus_per_trial=config.cpus_per_trial,
        pool=refiners(crf, place.compute),
        time_budget_seconds=config.time_budget_seconds,
        seed=config.seed,
    )
    return search(
        partial(score_slices, config, crf, slices),
        space,
        plan,
        storage.join(slices.directory, "trials"),
        label=lambda point: f"{STAGE} {point['form']}",
    )


def _show(
    place: Workplace, crf: CrfConfig, material: Material, best: SearchTrial, attempt: Attempt
) -> None:
    _, settings = split_point(best.point)
    show_settings(
        attempt,
        material.data,
        material.activations,
        material.threshold,
        SLAMS,
        make_refinement(replace(crf, **settings)),
        Confidence(**{name: best.history[-1][name] for name in CONFIDENCE}),
        place.tracking.num_examples,
    )


def best_trial(trials: list[SearchTrial], num_reports: int) -> SearchTrial:
    """The trial with the highest mIoU after all slices, the first of equal ones.

    Raises:
        TrainingError: no trial has finished.
    """
    finished = [t for t in trials if t.error is None and len(t.history) == num_reports]
    if not finished:
        raise TrainingError(
            f"none of {len(trials)} trials finished: their errors are above; the same command "
            "tries the failed ones again"
        )
    return max(finished, key=lambda trial: trial.history[-1][OBJECTIVE])
