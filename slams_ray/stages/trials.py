"""What a trial of the search reports, and how a choice does on images held out."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from slams_ray import storage
from slams_ray.config import CrfConfig, SearchConfig
from slams_ray.core.metrics import miou_of_counts
from slams_ray.core.pseudo_label import Refinement
from slams_ray.mappers.infer import SLAMS
from slams_ray.mappers.trial import SLICE_SCHEMA, JudgeMapper, PairCounts, count_slice
from slams_ray.runtime.shards import Pool, ShardInput, ShardJob, sum_shards
from slams_ray.stages.refine import make_refinement, placed
from slams_ray.stages.slices import maps_dir, read_slice, slices_dir
from slams_ray.stages.stage import Attempt

OBJECTIVE = "miou"


def strengths(config: SearchConfig, form: str) -> list[float]:
    """Background thresholds, evenly; or alphas, evenly on a logarithmic scale; lenient first."""
    if form == "power":
        return [float(v) for v in np.geomspace(*config.alphas, config.num_strengths)[::-1]]
    return [float(v) for v in np.linspace(*config.thresholds, config.num_strengths)]


def split_point(point: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The set of scales of a point, and its CRF settings."""
    crf = dict(point)
    return crf.pop("scales"), crf


def score_slices(
    config: SearchConfig,
    crf: CrfConfig,
    offsets: tuple[float, ...],
    output_dir: str,
    names: Sequence[str],
    num_categories: int,
    point: Mapping[str, Any],
) -> Iterator[dict[str, float]]:
    """After each slice: the best mIoU over strengths on the slices so far, and the confident pair
    around that strength.

    Args:
        output_dir: of the search, where its slices and maps are.
    """
    scales, settings = split_point(point)
    refinement = placed(make_refinement(replace(crf, **settings), offsets))
    values = strengths(config, refinement.form)
    counts = PairCounts.zeros(len(values), num_categories)
    for number, name in enumerate(names, start=1):
        table = read_slice(output_dir, name, scales)
        counts = counts + count_slice(table, refinement, values, num_categories)
        scores = counts.miou()
        best = int(np.nanargmax(scores))
        pair = counts.best_pair(best, config.max_ignored)
        yield {
            OBJECTIVE: float(scores[best]),
            "chosen": values[best],
            "lenient": values[pair[0]],
            "strict": values[pair[1]],
            "confident_miou": miou_of_counts(counts.classes[pair]),
            "ignored_fraction": counts.ignored(*pair),
            "num_slices": number,
        }


def make_judge(refinement: Refinement, strength: float, num_categories: int) -> JudgeMapper:
    """Runs once in every process that judges."""
    return JudgeMapper(placed(refinement), strength, num_categories)


def judge(
    label: str,
    refinement: Refinement,
    strength: float,
    scales: str,
    names: Sequence[str],
    num_categories: int,
    attempt: Attempt,
    pool: Callable[[], Pool | None] | None = None,
) -> float:
    """mIoU of a refinement at a strength on the named slices, with their maps at these scales."""
    columns = tuple(SLICE_SCHEMA.names)
    job = ShardJob(
        label=f"held out: {label}",
        names=names,
        inputs={
            "slices": ShardInput(directory=slices_dir(attempt.output_dir), columns=columns),
            "maps": ShardInput(
                directory=maps_dir(attempt.output_dir, scales), columns=("image_id", SLAMS)
            ),
        },
        output_dir=storage.join(attempt.output_dir, "judged", label),
        fingerprint=attempt.fingerprint,
        nodes=attempt.nodes,
        devices=attempt.devices,
        make_work=partial(make_judge, refinement, strength, num_categories),
        pool=pool,
    )
    return miou_of_counts(sum_shards(job, ["class_counts"])["class_counts"])
