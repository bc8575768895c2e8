"""Measures the CRF and the walk by Ray workers against plain processes."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image

from slams_ray import storage
from slams_ray.benchmarks.harness.pictures import Picture, resized
from slams_ray.benchmarks.harness.workers import Comparison
from slams_ray.benchmarks.measurements.crf import (
    GT_PROB,
    ITERATIONS,
    NUM_ALL_CLASSES,
    degraded,
)
from slams_ray.benchmarks.measurements.threshold import KERNELS
from slams_ray.config import WalkConfig
from slams_ray.data.image import encode_jpeg
from slams_ray.data.schema import DatasetDescription, voc_palette
from slams_ray.data.stored_maps import activation_schema, stored_size
from slams_ray.metrics import IGNORE_INDEX
from slams_ray.networks.checkpoint import dump_network
from slams_ray.networks.edge_network import EdgeNetwork
from slams_ray.refinement.pseudo_label import ConfidentPair, Refinement
from slams_ray.refinement.shard_work import RefineMapper
from slams_ray.runtime.shards import ShardInput, ShardWork
from slams_ray.stages.training import MODEL_NAME
from slams_ray.workers import walk

SYSTEM = "slams"


def refine_comparison(pictures: Sequence[Picture], num_shards: int, directory: str) -> Comparison:
    """Returns the comparison of warm Ray workers with plain processes in the same refinement.

    Args:
        pictures: images of a shard. All shards have the same images.
        directory: directory for shards and outputs.
    """
    return _comparison("CRF refine", make_refinement, pictures, num_shards, directory)


def walk_comparison(pictures: Sequence[Picture], num_shards: int, directory: str) -> Comparison:
    """Returns the same comparison for the walk, over the edges of a network with random weights.

    Args:
        pictures, num_shards, directory: as in `refine_comparison`.
    """
    path = write_edge_network(_description().class_names, directory)
    make_walk = partial(walk.make_walk, path, WalkConfig(), _description().class_names)
    make_work = partial(walk.make_mapper, SYSTEM, make_walk)
    return _comparison("walk, edges included", make_work, pictures, num_shards, directory)


def write_edge_network(class_names: Sequence[str], directory: str) -> str:
    """Writes an edge network with random weights, and returns its path."""
    architecture: dict[str, Any] = {"backbone_name": "mobilenet_v2", "output_stride": 16}
    torch.manual_seed(0)
    path = storage.join(directory, MODEL_NAME)
    data = dump_network(EdgeNetwork(**architecture), architecture, class_names)
    storage.write_bytes(path, data)
    return path


def _comparison(
    what: str,
    make_work: Callable[[], ShardWork],
    pictures: Sequence[Picture],
    num_shards: int,
    directory: str,
) -> Comparison:
    names = [f"{number:06d}.parquet" for number in range(num_shards)]
    inputs = {}
    for key, table in _refinement_tables(pictures).items():
        inputs[key] = ShardInput(
            directory=storage.join(directory, key), columns=tuple(table.column_names)
        )
        for name in names:
            storage.write_table(storage.join(directory, key, name), table)
    return Comparison(
        what=what,
        against="plain processes",
        names=names,
        inputs=inputs,
        make_work=make_work,
        plain=partial(_refine_plainly, make_work, inputs),
        directory=directory,
    )


def make_refinement() -> RefineMapper:
    """Returns a mapper like that of the stage: three mean-field runs per image on one lattice."""
    refinement = Refinement(form="label", gt_prob=GT_PROB, iterations=ITERATIONS, kernels=KERNELS)
    pair = ConfidentPair(background=0.2, chosen=0.3, foreground=0.4)
    return RefineMapper(_description(), SYSTEM, pair, refinement)


def _description() -> DatasetDescription:
    return DatasetDescription(
        name="benchmark",
        class_names=tuple(str(index) for index in range(NUM_ALL_CLASSES)),
        category_ids=tuple(range(NUM_ALL_CLASSES)),
        palette=voc_palette(NUM_ALL_CLASSES),
    )


def _refinement_tables(pictures: Sequence[Picture]) -> dict[str, pa.Table]:
    """Returns an image shard, and an activation shard of maps made from degraded ground truth."""
    images, maps = [], []
    for number, (image, truth) in enumerate(pictures):
        classes = np.setdiff1d(truth, [0, IGNORE_INDEX])
        labels = degraded(truth, classes, number)
        height, width = truth.shape
        stored = np.stack(
            [
                resized(
                    (labels == c + 1) * np.uint8(255),
                    *stored_size(height, width),
                    Image.Resampling.NEAREST,
                )
                for c in range(len(classes))
            ]
        )
        key = {"image_id": str(number)}
        images.append(key | {"image": encode_jpeg(image), "mask": None})
        size = {"height": height, "width": width}
        maps.append(key | size | {"image_labels": classes.tolist(), SYSTEM: stored.tobytes()})
    schema = [("image_id", pa.string()), ("image", pa.binary()), ("mask", pa.binary())]
    return {
        "images": pa.Table.from_pylist(images, schema=pa.schema(schema)),
        "activations": pa.Table.from_pylist(maps, schema=activation_schema([SYSTEM])),
    }


def _refine_plainly(
    make_work: Callable[[], ShardWork],
    inputs: Mapping[str, ShardInput],
    names: Sequence[str],
    output_dir: str,
) -> None:
    mapper = make_work()
    for name in names:
        tables = {
            key: pq.read_table(f"{source.directory}/{name}") for key, source in inputs.items()
        }
        table, _ = mapper(tables, None)
        pq.write_table(table, f"{output_dir}/{name}", compression="zstd")
