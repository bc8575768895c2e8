"""Stage search_refinement: trials with the CRF in the loop, on images set aside for it.

Half of the images scored here choose, the other half tell how well the choice holds; both numbers
stand in search.json beside those of the configured refinement. `refine` then uses what was chosen.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

from slams_ray import storage
from slams_ray.artifacts import to_plain
from slams_ray.config import ActivationInferenceConfig, CrfConfig, SearchConfig
from slams_ray.config.search import name_of_scales, scales_of
from slams_ray.core.pseudo_label import Confidence
from slams_ray.data.source import TRAIN
from slams_ray.errors import TrainingError
from slams_ray.mappers.infer import SLAMS
from slams_ray.runtime.search import SearchPlan, SearchTrial, search
from slams_ray.stages.prepare import PreparedData
from slams_ray.stages.refine import make_refinement, refiners
from slams_ray.stages.search_threshold import chosen_threshold, class_offsets
from slams_ray.stages.settings_report import show_settings
from slams_ray.stages.slices import count_images, infer_maps, scale_sets, write_slices
from slams_ray.stages.stage import Attempt, Outcome, Result, Workplace, run_stage
from slams_ray.stages.train_activation import ActivationNetworks
from slams_ray.stages.trials import OBJECTIVE, judge, score_slices, split_point

STAGE = "search_refinement"
SEARCH_NAME = "search.json"
SPACE = (
    "form",
    "iterations",
    "gt_prob",
    "cam_power",
    "gaussian_sxy_px",
    "gaussian_compat",
    "bilateral_sxy_px",
    "bilateral_srgb",
    "bilateral_compat",
)
"""Fields of SearchConfig that list values of the CrfConfig field of the same name."""
CONFIDENCE = ("lenient", "chosen", "strict")
_NO_RESULT = ("max_concurrent", "cpus_per_trial")


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
    inputs = {
        "prepare": material.data.scores_digest(TRAIN),
        "infer_activation": material.activations.record.fingerprint,
        "search_threshold": material.threshold.record.fingerprint,
    }
    work = partial(_work, place, config, crf, inference, material)
    return run_stage(place, STAGE, settings | {"crf": to_plain(crf)}, inputs, work)


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
    attempt: Attempt,
) -> Outcome:
    data, threshold = material.data, material.threshold
    searched, held_out = write_slices(config, inference, data, material.activations, attempt)
    configured_scales = name_of_scales(inference.scales)
    sets = scale_sets(config, inference)
    for scales in sets:
        if scales != configured_scales:
            names = [*searched, *held_out]
            infer_maps(scales, inference, names, data, material.networks, place, attempt)
    num_categories = len(data.description.class_names)
    offsets = class_offsets(threshold, SLAMS)
    pool = refiners(crf, place.compute)
    space = {"scales": sets} | {name: getattr(config, name) for name in SPACE}
    trials = search(
        partial(score_slices, config, crf, offsets, attempt.output_dir, searched, num_categories),
        space,
        SearchPlan(
            algorithm=config.algorithm,
            num_samples=config.num_samples,
            metric=OBJECTIVE,
            num_reports=len(searched),
            max_concurrent=config.max_concurrent,
            cpus_per_trial=config.cpus_per_trial,
            pool=pool,
            time_budget_seconds=config.time_budget_seconds,
            seed=config.seed,
        ),
        attempt.output_dir,
        "trials",
        label=lambda point: f"{STAGE} {point['form']}",
    )
    best = _best(trials, len(searched))
    last = best.history[-1]
    best_scales, settings = split_point(best.point)
    refinement = make_refinement(replace(crf, **settings), offsets)
    configured = chosen_threshold(threshold, SLAMS) if crf.form != "power" else crf.alpha
    judged = partial(
        judge, names=held_out, num_categories=num_categories, attempt=attempt, pool=pool
    )
    scores = {
        "searched_miou": last[OBJECTIVE],
        "searched_confident_miou": last["confident_miou"],
        "searched_ignored_fraction": last["ignored_fraction"],
        "held_out_miou": judged("chosen", refinement, last["chosen"], best_scales),
        "configured_held_out_miou": judged(
            "configured", make_refinement(crf, offsets), configured, configured_scales
        ),
    }
    num_images = [count_images(names, attempt) for names in (searched, held_out)]
    chosen = {"trial": best.trial_id, "point": best.point} | {n: last[n] for n in CONFIDENCE}
    content = {
        "split": TRAIN,
        "searched_images": num_images[0],
        "held_out_images": num_images[1],
        **scores,
        "best": chosen,
        "trials": [asdict(trial) for trial in trials],
    }
    path = storage.join(attempt.output_dir, SEARCH_NAME)
    storage.write_bytes(path, json.dumps(content, indent=1).encode())
    attempt.run.log_file(path)
    show_settings(
        attempt,
        data,
        material.activations,
        threshold,
        SLAMS,
        refinement,
        Confidence(**{name: last[name] for name in CONFIDENCE}),
        place.tracking.num_examples,
    )
    _track(attempt, trials, best, [name for name, values in space.items() if len(values) > 1])
    return Outcome(num_rows=sum(num_images), metrics=scores, notes={"best": chosen})


def _best(trials: Sequence[SearchTrial], num_reports: int) -> SearchTrial:
    """The trial with the highest mIoU after all slices."""
    finished = [t for t in trials if t.error is None and len(t.history) == num_reports]
    if not finished:
        raise TrainingError(
            f"none of {len(trials)} trials finished: their errors are above; the same command "
            "tries the failed ones again"
        )
    return max(finished, key=lambda trial: trial.history[-1][OBJECTIVE])


def _track(
    attempt: Attempt, trials: Sequence[SearchTrial], best: SearchTrial, searched: Sequence[str]
) -> None:
    """A child run per trial, the best point as tags, a table of all, a link that compares them."""
    children = []
    for trial in trials:
        child = attempt.run.child(f"trial {trial.trial_id}")
        # The page that compares them has an axis for each parameter.
        child.log_params({name: trial.point[name] for name in searched})
        for step, report in enumerate(trial.history, start=1):
            child.log_metrics(report, step)
        if trial.error is not None:
            child.set_tags({"slams.error": trial.error})
        child.finish("FINISHED" if trial.error is None else "FAILED")
        children.append(child)
    attempt.run.link_comparison(children, "Compare the trials")
    last = best.history[-1]
    chosen = {**best.point, **{name: last[name] for name in CONFIDENCE}}
    attempt.run.set_tags({f"best.{name}": str(value) for name, value in chosen.items()})
    unfinished = dict.fromkeys(last)
    rows = [
        {
            "trial": trial.trial_id,
            **trial.point,
            **(trial.history[-1] if trial.history else unfinished),
            "error": trial.error,
        }
        for trial in trials
    ]
    attempt.run.log_table(rows, "trials.json")
