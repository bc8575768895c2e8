"""Stage search_refinement: chooses refinement settings by trials on scored training images.

Trials choose on one half of the images. The other half is held out and tells how well the choice
generalises. search.json holds both scores, and those of the configured refinement, whose threshold
is chosen on the same half. The refine stage uses the chosen settings.

Slices, maps and trials are stored in a directory of their own. Searches that differ only in the
number of trials or in their time budget share it, so a search with more trials extends an earlier
one.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from slams_ray import storage
from slams_ray.artifacts import fingerprint, to_plain
from slams_ray.config import ActivationInferenceConfig, CrfConfig, SearchConfig
from slams_ray.config.search import name_of_scales
from slams_ray.data.source import TRAIN
from slams_ray.errors import TrainingError
from slams_ray.refinement.pseudo_label import ConfidentPair, has_effect
from slams_ray.runtime.cluster import check_cpus
from slams_ray.runtime.search import search
from slams_ray.runtime.search_space import SearchSpace
from slams_ray.runtime.trial_plan import SearchPlan, SearchTrial
from slams_ray.stages.map_sets import MapSet, Walks, walk_maps
from slams_ray.stages.prepare import PreparedData
from slams_ray.stages.refine import refiners
from slams_ray.stages.search_choice import PAIR, SEARCH_NAME
from slams_ray.stages.search_report import Findings, track_trials, write_findings
from slams_ray.stages.settings_report import ShownRefinement, show_settings
from slams_ray.stages.slices import ScoredSlices, infer_maps, scale_sets, write_slices
from slams_ray.stages.stage import Attempt, Outcome, Result, StageContext, run_stage
from slams_ray.stages.train_systems import MapNetwork
from slams_ray.stages.trials import (
    OBJECTIVE,
    Evaluator,
    held_out_scores,
    score_slices,
    split_point,
)
from slams_ray.workers.refinement import make_refinement

STAGE = "search_refinement"
TRIALS = "search_trials"
"""Directory of a workspace for slices, maps and trials that searches share."""
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
"""Fields of SearchConfig that list values of the CrfConfig field of the same name. Fields that
decide whether others have an effect come first."""
_NO_RESULT = ("max_concurrent", "cpus_per_trial")
_NO_TRIAL = ("num_samples", "time_budget_seconds")
"""Settings that change how many trials run, but not the result of a trial."""


@dataclass(frozen=True, kw_only=True)
class Upstream:
    """Inputs of a search: the maps of one system, their network and their threshold.

    Attributes:
        walks: walks to choose from; None without the step walk.
    """

    data: PreparedData
    system: str
    network: MapNetwork
    activations: Result
    threshold: Result
    walks: Walks | None = None


def run(
    context: StageContext,
    config: SearchConfig,
    crf: CrfConfig,
    inference: ActivationInferenceConfig,
    upstream: Upstream,
) -> Result:
    """Runs the search.

    Args:
        config: settings of the search.
        crf: configured refinement, which also fills in the settings that are not searched.
        inference: configured inference of maps.
        upstream: inputs of the search.
    """
    settings = {k: v for k, v in to_plain(config).items() if k not in _NO_RESULT}
    settings |= {"crf": to_plain(crf), "system": upstream.system}
    inputs = {
        "prepare": upstream.data.scores_digest(TRAIN),
        "infer_activation": upstream.activations.record.fingerprint,
        "search_threshold": upstream.threshold.record.fingerprint,
    }
    if upstream.walks is not None:
        inputs["train_affinity"] = upstream.walks.edges.record.fingerprint
        settings["walk"] = to_plain(upstream.walks.configured)
    shared = fingerprint(TRIALS, {k: v for k, v in settings.items() if k not in _NO_TRIAL}, inputs)
    work = partial(_work, context, config, crf, inference, upstream, shared)
    return run_stage(context, STAGE, settings, inputs, work)


def _work(
    context: StageContext,
    config: SearchConfig,
    crf: CrfConfig,
    inference: ActivationInferenceConfig,
    upstream: Upstream,
    shared: str,
    attempt: Attempt,
) -> Outcome:
    directory = storage.join(context.workspace, TRIALS, shared)
    shared_attempt = replace(attempt, output_dir=directory, fingerprint=shared)
    slices = _prepare_slices(context, config, inference, upstream, shared_attempt)
    space = search_space(config, inference, upstream.walks)
    trials = _run_trials(context, config, crf, slices, space)
    best = best_trial(trials, config.num_slices)
    walks = upstream.walks
    maps = MapSet(
        scales=name_of_scales(inference.scales), walk=None if walks is None else walks.names[0]
    )
    evaluator = Evaluator(slices=slices, attempt=attempt, pool=refiners(crf, context.compute))
    scores = _scores(config, crf, maps, best, evaluator)
    chosen = {"trial": best.trial_id, "point": best.point} | _pair_of(best)
    path = storage.join(attempt.output_dir, SEARCH_NAME)
    write_findings(path, Findings(slices=slices, scores=scores, best=chosen, trials=trials))
    attempt.run.log_file(path)
    if upstream.walks is None:
        _show(context, crf, upstream, best, attempt)
    track_trials(attempt, trials, chosen, [n for n, values in space.values.items() if values[1:]])
    return Outcome(
        num_rows=slices.num_searched + slices.num_held_out,
        metrics=scores,
        notes={"best": chosen, "shared_directory": directory},
        warnings=warnings_of(trials, attempt.output_dir),
    )


def warnings_of(trials: Sequence[SearchTrial], output_dir: str) -> list[str]:
    """Returns a warning if trials failed: the best of the others is chosen."""
    failed = [trial.trial_id for trial in trials if trial.error is not None]
    if not failed:
        return []
    return [
        f"{len(failed)} of {len(trials)} trials failed, such as {failed[0]}: see their errors in "
        f"the log. To try them again, remove {output_dir} and repeat the command"
    ]


def _scores(
    config: SearchConfig, crf: CrfConfig, maps: MapSet, best: SearchTrial, evaluator: Evaluator
) -> dict[str, float]:
    """Returns the scores of the best trial on the searched and on the held-out images.

    Args:
        maps: maps of the configured refinement.
    """
    last = best.history[-1]
    return {
        "searched_miou": last[OBJECTIVE],
        "searched_confident_miou": last["confident_miou"],
        "searched_ignored_fraction": last["ignored_fraction"],
    } | held_out_scores(config, crf, maps, best.point, last["chosen"], evaluator)


def _pair_of(trial: SearchTrial) -> dict[str, float]:
    return {name: trial.history[-1][name] for name in PAIR}


def search_space(
    config: SearchConfig, inference: ActivationInferenceConfig, walks: Walks | None
) -> SearchSpace:
    """Returns the values that trials can take. A trial leaves out settings without an effect."""
    values: dict[str, Sequence[Any]] = {"scales": scale_sets(config, inference)}
    if walks is not None:
        values["walk"] = walks.names
    return SearchSpace(values | {name: getattr(config, name) for name in SPACE}, has_effect)


def needed_scales(config: SearchConfig, inference: ActivationInferenceConfig) -> list[str]:
    """Returns the configured scales, with which every choice is compared, and those of trials."""
    return list(dict.fromkeys([name_of_scales(inference.scales), *scale_sets(config, inference)]))


def _prepare_slices(
    context: StageContext,
    config: SearchConfig,
    inference: ActivationInferenceConfig,
    upstream: Upstream,
    attempt: Attempt,
) -> ScoredSlices:
    """Writes the slices, and their maps at all sets of scales that trials and scores need."""
    data, system = upstream.data, upstream.system
    slices = write_slices(config, inference, data, upstream.activations, system, attempt.output_dir)
    for scales in needed_scales(config, inference):
        if scales != name_of_scales(inference.scales):
            infer_maps(scales, inference, slices, data, upstream.network, context, attempt)
        if upstream.walks is not None:
            names = [*slices.searched, *slices.held_out]
            walk_maps(names, MapSet(scales=scales), system, upstream.walks, context, attempt)
    return slices


def _run_trials(
    context: StageContext,
    config: SearchConfig,
    crf: CrfConfig,
    slices: ScoredSlices,
    space: SearchSpace,
) -> list[SearchTrial]:
    check_cpus("search.cpus_per_trial", config.cpus_per_trial)
    plan = SearchPlan(
        algorithm=config.algorithm,
        num_samples=config.num_samples,
        metric=OBJECTIVE,
        num_reports=config.num_slices,
        feedback_delay=config.feedback_delay,
        max_concurrent=config.max_concurrent,
        cpus_per_trial=config.cpus_per_trial,
        pool=refiners(crf, context.compute),
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
    context: StageContext, crf: CrfConfig, upstream: Upstream, best: SearchTrial, attempt: Attempt
) -> None:
    _, settings = split_point(best.point)
    shown = ShownRefinement(
        data=upstream.data,
        activations=upstream.activations,
        threshold=upstream.threshold,
        system=upstream.system,
        refinement=make_refinement(replace(crf, **settings)),
        pair=ConfidentPair(**_pair_of(best)),
    )
    show_settings(attempt, shown, context.tracking.num_examples)


def best_trial(trials: list[SearchTrial], num_reports: int) -> SearchTrial:
    """Returns the trial with the highest mIoU after all slices, the first of equal ones.

    Raises:
        TrainingError: no trial has finished.
    """
    finished = [t for t in trials if t.error is None and len(t.history) == num_reports]
    if not finished:
        raise TrainingError(
            f"none of {len(trials)} trials finished: see their errors above. The same command "
            "tries the failed trials again"
        )
    return max(finished, key=lambda trial: trial.history[-1][OBJECTIVE])
