"""Slices: the images that score the trials of a search, and their maps at each set of scales.

`slices/<name>.parquet` holds images and masks, `maps/<scales>/<name>.parquet` holds maps.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pyarrow as pa

from slams_ray import storage
from slams_ray.config import ActivationInferenceConfig, SearchConfig
from slams_ray.config.search import name_of_scales, scales_of
from slams_ray.data.image import decode_mask
from slams_ray.data.image_draw import draw_images
from slams_ray.data.source import TRAIN
from slams_ray.errors import ConfigError
from slams_ray.metrics import IGNORE_INDEX
from slams_ray.refinement.trial import SLICE_SCHEMA, maps_schema, with_maps
from slams_ray.runtime.shards import ShardInput, ShardJob, sum_shards
from slams_ray.stages.infer_activation import (
    COLUMNS,
    activations_dir,
    inference_pool,
    map_settings,
)
from slams_ray.stages.map_sets import MapSet
from slams_ray.stages.prepare import PreparedData
from slams_ray.stages.stage import Attempt, Result, StageContext
from slams_ray.stages.train_systems import MapNetwork
from slams_ray.training.data_loading import ShardColumns, iterate_rows
from slams_ray.training.sampling import ROWS_PER_GROUP
from slams_ray.workers.inference import make_mapper


@dataclass(frozen=True, kw_only=True)
class ScoredSlices:
    """Slices on storage.

    Attributes:
        directory: directory of the slices and their maps.
        system: system that made the maps.
        searched: names of the slices that the search chooses on.
        held_out: names of the held-out slices, which test the choice.
        num_searched: number of images in the searched slices.
        num_held_out: number of images in the held-out slices.
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
    """Returns the directory of the slices of a search that writes into output_dir."""
    return storage.join(output_dir, "slices")


def maps_dir(output_dir: str, scales: str) -> str:
    """Returns the directory of their maps at a set of scales."""
    return MapSet(scales=scales).directory(output_dir)


def read_slice(slices: ScoredSlices, name: str, maps: MapSet) -> pa.Table:
    """Reads the images of a slice with their masks and maps."""
    column = maps.column(slices.system)
    path = storage.join(maps.directory(slices.directory), name)
    return with_maps(
        storage.read_table(storage.join(slices_dir(slices.directory), name)),
        storage.read_table(path, ["image_id", column]),
        column,
    )


def scale_sets(config: SearchConfig, inference: ActivationInferenceConfig) -> tuple[str, ...]:
    """Returns the sets of scales to choose from, by name. By default, the set of inference."""
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
    """Draws scored images at random, and writes them and their maps at the scales of inference.

    Images alternate between the searched half and the held-out half.

    Raises:
        ConfigError: too few training images have masks.
    """
    rows = _scored_rows(config, data, activations, system)
    if len(rows) < 2 * config.num_slices:
        raise ConfigError(
            f"search.num_samples is {config.num_samples}, but only {len(rows)} training images "
            f"have masks that score a pixel, expected at least {2 * config.num_slices}: trials "
            "need ground truth. Set search.num_samples 0, or add masks"
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
    """Returns random images with masks and labels, up to twice config.num_images, shuffled.

    Only masks of drawn images are decoded: a data set may have some ten thousand.
    """
    wanted = num_drawn = 2 * config.num_images
    while True:
        drawn = draw_images(_candidates(data), num_drawn, config.seed)
        rows = _rows_of(drawn, data, activations, system)
        scored = [row for row in rows if _scores_pixels(row)]
        if len(scored) >= wanted or len(drawn) < num_drawn:
            return scored[:wanted]
        num_drawn *= 2


def _rows_of(
    drawn: Sequence[tuple[str, str]], data: PreparedData, activations: Result, system: str
) -> list[dict[str, Any]]:
    """Returns the rows of images, which are given by id and shard."""
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
    """Yields id and shard of every training image with a mask and a label."""
    source = ShardColumns(directory=data.images(TRAIN), columns=("mask", "image_labels"))
    for shard in data.names(TRAIN):
        for row in iterate_rows([shard], [source]):
            if row["mask"] is not None and row["image_labels"]:
                yield row["image_id"], shard


def _scores_pixels(row: Mapping[str, Any]) -> bool:
    """Whether a mask has other pixels than 255."""
    return bool((decode_mask(row["mask"], row["image_id"]) != IGNORE_INDEX).any())


def infer_maps(
    scales: str,
    inference: ActivationInferenceConfig,
    slices: ScoredSlices,
    data: PreparedData,
    network: MapNetwork,
    context: StageContext,
    attempt: Attempt,
) -> None:
    """Infers the maps of all slices at a set of scales."""
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
