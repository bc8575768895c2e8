"""Measures the prediction of many photographs: Ray workers against bare loops, and memory."""

import os
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch

from slams_ray import storage
from slams_ray.benchmarks.harness.loops import bare_masks
from slams_ray.benchmarks.harness.measure import Row, growth_rows
from slams_ray.benchmarks.harness.processes import peak_of_process
from slams_ray.benchmarks.harness.shards import Shards
from slams_ray.benchmarks.harness.workers import Comparison
from slams_ray.config import InferenceConfig
from slams_ray.data.schema import DatasetDescription
from slams_ray.inference.precision import inference_dtype, optimize_for_inference
from slams_ray.model.source import CHECKPOINT_NAME
from slams_ray.networks.checkpoint import dump_network, load_network
from slams_ray.networks.segmentation_network import SegmentationNetwork
from slams_ray.runtime.shards import ShardInput
from slams_ray.stages import predict_cluster
from slams_ray.stages.predict import run
from slams_ray.stages.predict_settings import PredictSettings

INFERENCE = InferenceConfig(scales=(1.0,), flip=True)
IMAGES_PER_SHARD = 8
FEWEST_IMAGES = 32


def write_network(description: DatasetDescription, directory: str) -> str:
    """Writes a segmentation network with random weights, and returns its path."""
    architecture: dict[str, Any] = {
        "backbone_name": "mobilenet_v2",
        "output_stride": 16,
        "num_classes": description.num_classes,
        "head": "deeplabv2",
    }
    torch.manual_seed(0)
    settings = asdict(INFERENCE) | {"max_side_px": None}
    network = SegmentationNetwork(**architecture)
    path = storage.join(directory, CHECKPOINT_NAME)
    data = dump_network(network, architecture, description.class_names, settings)
    storage.write_bytes(path, data)
    return path


def predict_comparison(shards: Shards, model: str, directory: str) -> Comparison:
    """Returns the comparison of warm Ray workers with bare loops over the same network."""
    settings = PredictSettings(output_format="parquet")
    return Comparison(
        what="prediction of photographs",
        against="bare loops, same network",
        names=shards.names,
        inputs={"images": ShardInput(directory=shards.directory, columns=("image_id", "image"))},
        make_work=predict_cluster.make_work(model, directory, settings, INFERENCE.precision),
        plain=partial(predict_plainly, model, shards.directory),
        directory=storage.join(directory, "masks"),
    )


def predict_plainly(model: str, directory: str, names: Sequence[str], output_dir: str) -> None:
    """Work of a plain process: loads the network once, then predicts shard after shard."""
    cpu = torch.device("cpu")
    network = load_network(storage.read_bytes(model), model, "segmentation_network")
    network = optimize_for_inference(network, inference_dtype(INFERENCE.precision, cpu), cpu)
    for name in names:
        bare_masks(storage.join(directory, name), output_dir, network)


def memory_rows(shards: Shards, model: str, directory: str, factors: Sequence[int]) -> list[Row]:
    """Returns rows of the peak memory of driver plus largest worker, against the first factor."""
    images = _write_files(shards, f"{directory}/photographs")
    peaks = {}
    for factor in factors:
        photographs = _repeated(images, factor, f"{directory}/photographs-{factor}")
        how = PredictSettings(use_cluster=True, images_per_shard=IMAGES_PER_SHARD)
        output = f"{directory}/masks-{factor}"
        work = partial(run, model, photographs, output, how)
        peaks[factor * len(images)] = peak_of_process(work, f"{output}.json")
    return growth_rows("prediction on a cluster", peaks)


def _write_files(shards: Shards, directory: str) -> list[Path]:
    rows = [row for path in shards.paths for row in storage.read_table(path).to_pylist()]
    paths = [Path(directory, f"{number:05d}.jpg") for number in range(FEWEST_IMAGES)]
    for path, row in zip(paths, rows, strict=False):
        storage.write_bytes(str(path), row["image"])
    return paths[: len(rows)]


def _repeated(images: Sequence[Path], factor: int, directory: str) -> str:
    """Links each image factor times into a directory, and returns it."""
    Path(directory).mkdir()
    for number in range(factor):
        for image in images:
            os.link(image, Path(directory, f"{number:02d}-{image.name}"))
    return directory
