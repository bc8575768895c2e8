"""The images that score the trials of a search, cut into slices, and their maps at each scale set.

`slices/<name>.parquet` holds images and masks, `maps/<scales>/<name>.parquet` the SLAMs maps.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pyarrow as pa

from slams_ray import storage
from slams_ray.config import ActivationInferenceConfig, SearchConfig
from slams_ray.config.search import name_of_scales, scales_of
from slams_ray.core.sampling import ROWS_PER_GROUP
from slams_ray.data.source import TRAIN
from slams_ray.errors import ConfigError
from slams_ray.mappers.infer import SLAMS
from slams_ray.mappers.trial import MAPS_SCHEMA, SLICE_SCHEMA, with_maps
from slams_ray.runtime.shards import ShardInput, ShardJob, sum_shards
from slams_ray.stages.infer_activation import (
    COLUMNS,
    activations_dir,
    inference_pool,
    make_mapper,
)
from slams_ray.stages.prepare import PreparedData
from slams_ray.stages.stage import Attempt, Result, Workplace
from slams_ray.stages.train_activation import ActivationNetworks
from slams_ray.stages.training import MODEL_NAME
from slams_ray.tasks.feed import ShardColumns, iterate_rows


def slices_dir(output_dir: str) -> str:
    """Where the search that writes into output_dir keeps its slices."""
    return storage.join(output_dir, "slices")


def maps_dir(output_dir: str, scales: str) -> str:
    """Where it keeps their maps at a set of scales."""
    return storage.join(output_dir, "maps", scales)


def read_slice(output_dir: str, name: str, scales: str) -> pa.Table:
    """The images of a slice with their masks and maps."""
    return with_maps(
        storage.read_table(storage.join(slices_dir(output_dir), name)),
        storage.read_table(storage.join(maps_dir(output_dir, scales), name)),
    )


def scale_sets(config: SearchConfig, inference: ActivationInferenceConfig) -> tuple[str, ...]:
    """The sets of scales to choose from, by name; those of inference where none are given."""
    named = (name_of_scales(scales_of(text)) for text in config.scales)
    return tuple(dict.fromkeys(named)) or (name_of_scales(inference.scales),)


def write_slices(
    config: SearchConfig,
    inference: ActivationInferenceConfig,
    data: PreparedData,
    activations: Result,
    attempt: Attempt,
) -> tuple[list[str], list[str]]:
    """Names of the slices that choose, and of those held out; images alternate between them."""
    rows = _scored_rows(config, data, activations)
    if len(rows) < 2 * config.num_slices:
        raise ConfigError(
            f"search.num_samples is {config.num_samples}, but only {len(rows)} training images "
            f"have masks, expected at least {2 * config.num_slices}: trials need ground truth to "
            "be scored on, set search.num_samples 0 or give masks"
        )
    configured = maps_dir(attempt.output_dir, name_of_scales(inference.scales))
    names: tuple[list[str], list[str]] = ([], [])
    for half, kind in enumerate(("searched", "held-out")):
        for number in range(config.num_slices):
            part = rows[half::2][number :: config.num_slices]
            names[half].append(f"{kind}-{number}.parquet")
            _write(slices_dir(attempt.output_dir), names[half][-1], part, SLICE_SCHEMA)
            _write(configured, names[half][-1], part, MAPS_SCHEMA)
    return names


def _write(directory: str, name: str, rows: list[dict[str, Any]], schema: pa.Schema) -> None:
    table = pa.Table.from_pylist(rows, schema=schema)
    storage.write_table(storage.join(directory, name), table, ROWS_PER_GROUP)


def _scored_rows(
    config: SearchConfig, data: PreparedData, activations: Result
) -> list[dict[str, Any]]:
    """The first images with masks and labels, twice as many as score a trial."""
    columns = ("image", "height", "width", "mask", "image_labels")
    sources = [
        ShardColumns(directory=data.images(TRAIN), columns=columns),
        ShardColumns(directory=activations_dir(activations.output_dir), columns=(SLAMS,)),
    ]
    rows: list[dict[str, Any]] = []
    for row in iterate_rows(data.names(TRAIN), sources):
        if row["mask"] is not None and row["image_labels"]:
            rows.append(dict(row))
        if len(rows) == 2 * config.num_images:
            break
    return rows


def infer_maps(
    scales: str,
    inference: ActivationInferenceConfig,
    names: Sequence[str],
    data: PreparedData,
    networks: ActivationNetworks,
    place: Workplace,
    attempt: Attempt,
) -> None:
    """Makes the maps of the named slices at a set of scales."""
    job = ShardJob(
        label=f"maps at {scales}",
        names=names,
        inputs={"images": ShardInput(directory=slices_dir(attempt.output_dir), columns=COLUMNS)},
        output_dir=maps_dir(attempt.output_dir, scales),
        fingerprint=attempt.fingerprint,
        nodes=attempt.nodes,
        devices=attempt.devices,
        make_work=partial(
            make_mapper,
            {SLAMS: networks.slams.path(MODEL_NAME)},
            replace(inference, scales=scales_of(scales)),
            data.description.class_names,
        ),
        pool=inference_pool(place.compute),
    )
    sum_shards(job, [])


def count_images(names: Sequence[str], attempt: Attempt) -> int:
    """Images in the named slices."""
    paths = [storage.join(slices_dir(attempt.output_dir), name) for name in names]
    return sum(storage.read_table(path, ["image_id"]).num_rows for path in paths)
