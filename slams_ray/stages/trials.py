"""Slices of images for the trials of a search, and what is scored on them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from slams_ray import storage
from slams_ray.config import CrfConfig, SearchConfig
from slams_ray.core.metrics import miou_of_counts
from slams_ray.core.pseudo_label import Refinement
from slams_ray.core.sampling import ROWS_PER_GROUP
from slams_ray.data.source import TRAIN
from slams_ray.errors import ConfigError
from slams_ray.mappers.infer import SLAMS
from slams_ray.mappers.trial import SLICE_SCHEMA, JudgeMapper, PairCounts, count_slice
from slams_ray.runtime.shards import ShardInput, ShardJob, sum_shards
from slams_ray.stages.infer_activation import activations_dir
from slams_ray.stages.prepare import PreparedData
from slams_ray.stages.refine import make_refinement
from slams_ray.stages.stage import Attempt, Result
from slams_ray.tasks.feed import ShardColumns, iterate_rows

OBJECTIVE = "miou"


def strengths(config: SearchConfig, form: str) -> list[float]:
    """Background thresholds, evenly; or alphas, evenly on a logarithmic scale; lenient first."""
    if form == "power":
        return [float(v) for v in np.geomspace(*config.alphas, config.num_strengths)[::-1]]
    return [float(v) for v in np.linspace(*config.thresholds, config.num_strengths)]


def score_slices(
    config: SearchConfig,
    crf: CrfConfig,
    offsets: tuple[float, ...],
    directory: str,
    names: Sequence[str],
    num_categories: int,
    point: Mapping[str, Any],
) -> Iterator[dict[str, float]]:
    """After each slice: the best mIoU over strengths on the slices so far, and the confident pair
    around that strength.
    """
    refinement = make_refinement(replace(crf, **point), offsets)
    values = strengths(config, refinement.form)
    counts = PairCounts.zeros(len(values), num_categories)
    for number, name in enumerate(names, start=1):
        table = storage.read_table(storage.join(directory, name))
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


def judge(
    choices: Mapping[str, tuple[Refinement, float]],
    names: Sequence[str],
    num_categories: int,
    attempt: Attempt,
) -> dict[str, float]:
    """mIoU of each choice on the held-out slices."""
    job = ShardJob(
        label="held-out images",
        names=names,
        inputs={
            "slices": ShardInput(directory=slices_dir(attempt), columns=tuple(SLICE_SCHEMA.names))
        },
        output_dir=storage.join(attempt.output_dir, "judged"),
        fingerprint=attempt.fingerprint,
        make_work=partial(JudgeMapper, choices, num_categories),
    )
    totals = sum_shards(job, tuple(choices))
    return {name: miou_of_counts(totals[name]) for name in choices}


def slices_dir(attempt: Attempt) -> str:
    """Where an attempt at the stage keeps its slices."""
    return storage.join(attempt.output_dir, "slices")


def write_slices(
    config: SearchConfig, data: PreparedData, activations: Result, attempt: Attempt
) -> tuple[list[str], list[str]]:
    """Names of the slices that choose, and of those held out; images alternate between them."""
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
    names: tuple[list[str], list[str]] = ([], [])
    for half, kind in enumerate(("searched", "held-out")):
        for number in range(config.num_slices):
            part = rows[half::2][number :: config.num_slices]
            names[half].append(f"{kind}-{number}.parquet")
            storage.write_table(
                storage.join(slices_dir(attempt), names[half][-1]),
                pa.Table.from_pylist(part, schema=SLICE_SCHEMA),
                ROWS_PER_GROUP,
            )
    return names


def count_images(names: Sequence[str], attempt: Attempt) -> int:
    """Images in the named slices."""
    paths = [storage.join(slices_dir(attempt), name) for name in names]
    return sum(storage.read_table(path, ["image_id"]).num_rows for path in paths)
