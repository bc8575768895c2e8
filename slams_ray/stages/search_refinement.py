"""Stage search_refinement: trials with the CRF in the loop, on images set aside for it.

Half of the images scored here choose, the other half tell how well the choice holds; both numbers
stand in search.json beside those of the configured refinement. `refine` then uses what was chosen.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from slams_ray import storage
from slams_ray.artifacts import to_plain
from slams_ray.config import CrfConfig, SearchConfig
from slams_ray.core.metrics import segmentation_scores
from slams_ray.core.sampling import ROWS_PER_GROUP
from slams_ray.data.source import TRAIN
from slams_ray.errors import ConfigError, TrainingError
from slams_ray.mappers.infer import SLAMS
from slams_ray.mappers.trial import SLICE_SCHEMA, count_slice
from slams_ray.runtime.search import SearchPlan, SearchTrial, search
from slams_ray.stages.infer_activation import activations_dir
from slams_ray.stages.prepare import PreparedData
from slams_ray.stages.refine import make_refinement
from slams_ray.stages.search_threshold import chosen_threshold
from slams_ray.stages.stage import Attempt, Outcome, Result, Workplace, run_stage
from slams_ray.tasks.feed import ShardColumns, iterate_rows

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
OBJECTIVE = "miou"
_NO_RESULT = ("max_concurrent", "cpus_per_trial")


def run(
    place: Workplace,
    config: SearchConfig,
    crf: CrfConfig,
    data: PreparedData,
    activations: Result,
    threshold: Result,
) -> Result:
    settings = {k: v for k, v in to_plain(config).items() if k not in _NO_RESULT}
    inputs = {
        "prepare": data.fingerprint,
        "infer_activation": activations.record.fingerprint,
        "search_threshold": threshold.record.fingerprint,
    }
    work = partial(_work, config, crf, data, activations, threshold)
    return run_stage(place, STAGE, settings | {"crf": to_plain(crf)}, inputs, work)


def chosen_refinement(result: Result, crf: CrfConfig) -> tuple[CrfConfig, float | None]:
    """The CRF settings a finished search chose, and the threshold; None keeps the curve's."""
    best = json.loads(storage.read_bytes(result.path(SEARCH_NAME)))["best"]
    return apply_point(crf, best["point"], best["strength"])


def apply_point(
    crf: CrfConfig, point: Mapping[str, Any], strength: float
) -> tuple[CrfConfig, float | None]:
    """CRF settings at a point, and its threshold; None where the strength became their alpha."""
    chosen = replace(crf, **point)
    if chosen.form != "power":
        return chosen, strength
    low, high = (strength * bound / crf.alpha for bound in crf.alpha_pair)
    return replace(chosen, alpha=strength, alpha_pair=(low, high)), None


def strengths(config: SearchConfig, form: str) -> list[float]:
    """Background thresholds, evenly; or alphas, evenly on a logarithmic scale."""
    if form == "power":
        return [float(v) for v in np.geomspace(*config.alphas, config.num_strengths)]
    return [float(v) for v in np.linspace(*config.thresholds, config.num_strengths)]


def _work(
    config: SearchConfig,
    crf: CrfConfig,
    data: PreparedData,
    activations: Result,
    threshold: Result,
    attempt: Attempt,
) -> Outcome:
    searched, held_out = _write_slices(config, data, activations, attempt.output_dir)
    num_categories = len(data.description.class_names)
    trials = search(
        partial(score_slices, config, crf, searched, num_categories),
        {name: getattr(config, name) for name in SPACE},
        SearchPlan(
            algorithm=config.algorithm,
            num_samples=config.num_samples,
            metric=OBJECTIVE,
            num_reports=len(searched),
            max_concurrent=config.max_concurrent,
            cpus_per_trial=config.cpus_per_trial,
            time_budget_seconds=config.time_budget_seconds,
            seed=config.seed,
        ),
        attempt.output_dir,
        "trials",
        label=lambda point: f"{STAGE} {point['form']}",
    )
    finished = [t for t in trials if t.error is None and len(t.history) == len(searched)]
    if not finished:
        raise TrainingError(
            f"none of {len(trials)} trials finished: their errors are above; the same command "
            "tries the failed ones again"
        )
    best = max(finished, key=lambda trial: trial.history[-1][OBJECTIVE])
    strength = best.history[-1]["strength"]
    configured = chosen_threshold(threshold, SLAMS) if crf.form != "power" else crf.alpha
    judge = partial(_score, num_categories=num_categories, paths=held_out)
    scores = {
        "searched_miou": best.history[-1][OBJECTIVE],
        "held_out_miou": judge(replace(crf, **best.point), strength),
        "configured_held_out_miou": judge(crf, configured),
    }
    content = {
        "split": TRAIN,
        "searched_images": sum(storage.read_table(path).num_rows for path in searched),
        "held_out_images": sum(storage.read_table(path).num_rows for path in held_out),
        **scores,
        "best": {"trial": best.trial_id, "point": best.point, "strength": strength},
        "trials": [asdict(trial) for trial in trials],
    }
    path = storage.join(attempt.output_dir, SEARCH_NAME)
    storage.write_bytes(path, json.dumps(content, indent=1).encode())
    attempt.run.log_file(path)
    _track(attempt, trials, best)
    num_rows = content["searched_images"] + content["held_out_images"]
    return Outcome(num_rows=num_rows, metrics=scores, notes={"best": content["best"]})


def score_slices(
    config: SearchConfig,
    crf: CrfConfig,
    paths: Sequence[str],
    num_categories: int,
    point: Mapping[str, Any],
) -> Iterator[dict[str, float]]:
    """After each slice: the best mIoU over strengths on the slices so far."""
    refinement = make_refinement(replace(crf, **point))
    values = strengths(config, refinement.form)
    counts = np.zeros((len(values), num_categories, num_categories + 1), np.int64)
    for number, path in enumerate(paths, start=1):
        counts += count_slice(storage.read_table(path), refinement, values, num_categories)
        scores = [segmentation_scores(confusion).miou for confusion in counts]
        best = int(np.nanargmax(scores))
        yield {OBJECTIVE: scores[best], "strength": values[best], "num_slices": number}


def _score(crf: CrfConfig, strength: float, num_categories: int, paths: Sequence[str]) -> float:
    """mIoU of one refinement at one strength over slices."""
    counts = sum(
        count_slice(storage.read_table(path), make_refinement(crf), [strength], num_categories)
        for path in paths
    )
    return segmentation_scores(np.asarray(counts)[0]).miou


def _write_slices(
    config: SearchConfig, data: PreparedData, activations: Result, output_dir: str
) -> tuple[list[str], list[str]]:
    """Paths of the slices that choose, and of those held out; images alternate between them."""
    sources = [
        ShardColumns(directory=data.images(TRAIN), columns=("image", "mask", "image_labels")),
        ShardColumns(directory=activations_dir(activations.output_dir), columns=(SLAMS,)),
    ]
    rows: list[dict[str, Any]] = []
    for row in iterate_rows(data.names(TRAIN), sources):
        if row["mask"] is not None and row["image_labels"]:
            rows.append({**row, "maps": row[SLAMS]})
        if len(rows) == 2 * config.num_images:
            break
    if len(rows) < 2 * config.num_slices:
        raise ConfigError(
            f"search.num_samples is {config.num_samples}, but only {len(rows)} training images "
            f"have masks, expected at least {2 * config.num_slices}: trials need ground truth to "
            "be scored on, set search.num_samples 0 or give masks"
        )
    paths: tuple[list[str], list[str]] = ([], [])
    for half, name in enumerate(("searched", "held-out")):
        for number in range(config.num_slices):
            table = pa.Table.from_pylist(
                rows[half::2][number :: config.num_slices], schema=SLICE_SCHEMA
            )
            path = storage.join(output_dir, "slices", f"{name}-{number}.parquet")
            storage.write_table(path, table, ROWS_PER_GROUP)
            paths[half].append(path)
    return paths


def _track(attempt: Attempt, trials: Sequence[SearchTrial], best: SearchTrial) -> None:
    """A child run per trial, the best point as tags, and a table of all."""
    for trial in trials:
        child = attempt.run.child(f"trial {trial.trial_id}")
        child.log_params(trial.point)
        for step, report in enumerate(trial.history, start=1):
            child.log_metrics(report, step)
        if trial.error is not None:
            child.set_tags({"slams.error": trial.error})
        child.finish("FINISHED" if trial.error is None else "FAILED")
    attempt.run.set_tags({f"best.{k}": str(v) for k, v in best.point.items()})
    rows = [
        {
            "trial": trial.trial_id,
            **trial.point,
            **{k: trial.history[-1][k] if trial.history else None for k in (OBJECTIVE, "strength")},
            "slices": len(trial.history),
            "error": trial.error,
        }
        for trial in trials
    ]
    attempt.run.log_table(rows, "trials.json")
