"""The images that score the trials of a search, cut into slices, and their maps at each scale set.

`slices/<name>.parquet` holds images and masks, `maps/<scales>/<name>.parquet` the maps.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pyarrow as pa

from slams_ray import storage
from slams_ray.config import ActivationInferenceConfig, SearchConfig
from slams_ray.config.search import name_of_scales, scales_of
from slams_ray.data.image_draw import draw_images
from slams_ray.data.source import TRAIN
from slams_ray.errors import ConfigError
from slams_ray.refinement.trial import SLICE_SCHEMA, maps_schema, with_maps
from slams_ray.runtime.shards import ShardInput, ShardJob, sum_shards
from slams_ray.stages.infer_activation import (
    COLUMNS,
    activations_dir,
    inference_pool,
    make_mapper,
    map_settings,
)
from slams_ray.stages.prepare import PreparedData
from slams_ray.stages.stage import Attempt, Result, StageContext
from slams_ray.stages.train_systems import MapNetwork
from slams_ray.training.data_loading import ShardColumns, iterate_rows
from slams_ray.training.sampling import ROWS_PER_GROUP


@dataclass(frozen=True, kw_only=True)
class ScoredSlices:
    """Slices on storage.

    Attributes:
        directory: holds them and their maps.
        system: whose maps they are.
        searched: names of those that choose.
        held_out: names of those that tell how well the choice holds.
        num_searched: images in the first.
        num_held_out: images in the second.
        num_all_classes: classes with background.
    """

    directory: str
    system: str
    searched: Sequence[str]
    held_out: Sequence[str]
    num_searched: int
    num_held_out: int
    num_all_classes: int


def slices_dir(output_dir: str) -> str:
    """Where the search that writes into output_dir keeps its slices."""
    return storage.join(output_dir, "slices")


def maps_dir(output_dir: str, scales: str) -> str:
    """Where it keeps their maps at a set of scales."""
    return storage.join(output_dir, "maps", scales)


def read_slice(slices: ScoredSlices, name: str, scales: str) -> pa.Table:
    """The images of a slice with their masks and maps."""
    return with_maps(
        storage.read_table(storage.join(slices_dir(slices.directory), name)),
        storage.read_table(storage.join(maps_dir(slices.directory, scales), name)),
        slices.system,
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
    system: str,
    output_dir: str,
) -> ScoredSlices:
    """Draws the scored images at random, and writes them and their maps at the scales of inference.

    Images alternate between the half that chooses and the half that is held out.

    Raises:
        ConfigError: too few training images have masks.
    """
    rows = _scored_rows(config, data, activations, system)
    if len(rows) < 2 * config.num_slices:
        raise ConfigError(
            f"search.num_samples is {config.num_samples}, but only {len(rows)} training images "
            f"have masks, expected at least {2 * config.num_slices}: trials need ground truth to "
            "be scored on, set search.num_samples 0 or give masks"
        )
    configured = maps_dir(output_dir, name_of_scales(inference.scales))
    names: tuple[list[str], list[str]] = ([], [])
    for half, kind in enumerate(("searched", "held-out")):
        for number in range(config.num_slices):
            part = rows[half::2][number :: config.num_slices]
            names[half].append(f"{kind}-{number}.parquet")
            _write(slices_dir(output_dir), names[half][-1], part, SLICE_SCHEMA)
            _write(configured, names[half][-1], part, maps_schema(system))
    return ScoredSlices(
        directory=output_dir,
        system=system,
        searched=names[0],
        held_out=names[1],
        num_searched=len(rows[::2]),
        num_held_out=len(rows[1::2]),
        num_all_classes=len(data.description.class_names),
    )


def _write(directory: str, name: str, rows: list[dict[str, Any]], schema: pa.Schema) -> None:
    table = pa.Table.from_pylist(rows, schema=schema)
    storage.write_table(storage.join(directory, name), table, ROWS_PER_GROUP)


def _scored_rows(
    config: SearchConfig, data: PreparedData, activations: Result, system: str
) -> list[dict[str, Any]]:
    """Random images with masks and labels, twice as many as score a trial, in random order."""
    drawn = draw_images(_candidates(data), 2 * config.num_images, config.seed)
    columns = ("image", "height", "width", "mask", "image_labels")
    sources = [
        ShardColumns(directory=data.images(TRAIN), columns=columns),
        ShardColumns(directory=activations_dir(activations.output_dir), columns=(system,)),
    ]
    ids = {image_id for image_id, _ in drawn}
    shards = sorted({shard for _, shard in drawn})
    rows = {
        row["image_id"]: dict(row)
        for row in iterate_rows(shards, sources)
        if row["image_id"] in ids
    }
    return [rows[image_id] for image_id, _ in drawn]


def _candidates(data: PreparedData) -> Iterator[tuple[str, str]]:
    """Id and shard of every training image that can score a trial."""
    source = ShardColumns(directory=data.images(TRAIN), columns=("mask", "image_labels"))
    for shard in data.names(TRAIN):
        for row in iterate_rows([shard], [source]):
            if row["mask"] is not None and row["image_labels"]:
                yield row["image_id"], shard


def infer_maps(
    scales: str,
    inference: ActivationInferenceConfig,
    slices: ScoredSlices,
    data: PreparedData,
    network: MapNetwork,
    context: StageContext,
    attempt: Attempt,
) -> None:
    """Makes the maps of all slices at a set of scales."""
    job = ShardJob(
        label=f"maps at {scales}",
        names=[*slices.searched, *slices.held_out],
        inputs={"images": ShardInput(directory=slices_dir(slices.directory), columns=COLUMNS)},
        output_dir=maps_dir(slices.directory, scales),
        fingerprint=attempt.fingerprint,
        nodes=attempt.nodes,
        devices=attempt.devices,
        make_work=partial(
            make_mapper,
            map_settings(
                {slices.system: network},
                replace(inference, scales=scales_of(scales)),
                data.description.class_names,
            ),
        ),
        pool=inference_pool(context.compute),
    )
    sum_shards(job, [])
