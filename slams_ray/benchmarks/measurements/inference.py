"""Measures activation inference against a bare loop and the field's script: time and bytes."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch

from slams_ray import storage
from slams_ray.benchmarks.harness.loops import bare_shard, field_image
from slams_ray.benchmarks.harness.measure import Row, compare, row
from slams_ray.benchmarks.harness.shards import Shards
from slams_ray.benchmarks.harness.workers import Comparison
from slams_ray.config import ActivationInferenceConfig, BackboneConfig
from slams_ray.data.image import decode_image, decode_mask
from slams_ray.data.stored_maps import unpack_maps, upsample_stored
from slams_ray.data.transforms import normalise
from slams_ray.inference.precision import inference_dtype, optimize_for_inference
from slams_ray.networks.activation_network import ActivationNetwork
from slams_ray.networks.checkpoint import dump_network, load_network, network_class_names
from slams_ray.runtime.shards import ShardInput
from slams_ray.seeds.threshold import ThresholdCounts, count_thresholds, threshold_curve
from slams_ray.stages.infer_activation import COLUMNS
from slams_ray.workers.inference import MapSettings, make_mapper

BASELINE, OTHER = SYSTEMS = ("cam", "slams")
"""Two systems, whose maps are inferred in one pass."""
BACKBONE = BackboneConfig(name="mobilenet_v2", output_stride=16)
NUM_LEVELS = 256
CPU = torch.device("cpu")


@dataclass(frozen=True, kw_only=True)
class Inference:
    """Work of the infer_activation stage: shards, checkpoints and settings.

    Attributes:
        models: system -> path of its checkpoint.
        directory: directory for all outputs.
        cpu_networks: what computes our networks, see `ComputeConfig`.
    """

    shards: Shards
    models: dict[str, str]
    config: ActivationInferenceConfig
    directory: str
    cpu_networks: str = "torch"

    @property
    def dtype(self) -> torch.dtype:
        return inference_dtype(self.config.precision, CPU)

    def networks(
        self, dtype: torch.dtype | None, device: torch.device = CPU
    ) -> dict[str, torch.nn.Module]:
        """Loads the networks, optimized for inference in dtype. None leaves them as trained."""
        found: dict[str, torch.nn.Module] = {
            name: load_network(storage.read_bytes(path), path, "activation_network")
            for name, path in self.models.items()
        }
        if dtype is None:
            return found
        return {name: optimize_for_inference(net, dtype, device) for name, net in found.items()}

    @property
    def make_work(self) -> partial:  # type: ignore[type-arg]
        settings = MapSettings(
            checkpoints=self.models,
            max_logits={},
            inference=self.config,
            class_names=self.shards.description.class_names,
            cpu_networks=self.cpu_networks,
        )
        return partial(make_mapper, settings)


def open_models(given: Sequence[str] | None, shards: Shards, directory: str) -> dict[str, str]:
    """Returns system -> checkpoint: the given ones of CAM and SLAMs, or random ones."""
    if given is None:
        return random_models(shards, directory)
    return {method: storage.absolute(path) for method, path in zip(SYSTEMS, given, strict=True)}


def known_classes(given: Sequence[str] | None) -> tuple[str, ...]:
    """Returns the object classes of the given checkpoints; empty without checkpoints."""
    if given is None:
        return ()
    data = storage.read_bytes(storage.absolute(given[0]))
    return tuple(network_class_names(data, given[0])[1:])


def random_models(
    shards: Shards, directory: str, backbone: BackboneConfig = BACKBONE
) -> dict[str, str]:
    """Writes checkpoints with random weights, one for each system.

    BatchNorm gets its statistics from an image of the shards. With its initial statistics, all maps
    would be 0.
    """
    data = storage.read_table(shards.paths[0], ["image"])["image"][0].as_py()
    pixels = normalise(torch.from_numpy(decode_image(data, "first image").copy())[None])
    architecture: dict[str, Any] = {
        "backbone_name": backbone.name,
        "output_stride": backbone.output_stride,
        "num_classes": shards.description.num_classes,
    }
    paths = {}
    for seed, method in enumerate(SYSTEMS):
        torch.manual_seed(seed)
        network = ActivationNetwork(**architecture)
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = 1.0
        with torch.no_grad():
            network.train()(pixels)
        paths[method] = storage.join(directory, f"{method}.pt")
        names = shards.description.class_names
        storage.write_bytes(paths[method], dump_network(network, architecture, names))
    return paths


def bare_loop(inference: Inference, made: bool, names: Sequence[str], output_dir: str) -> None:
    """Work of a plain process: loads the networks once, then infers shard after shard.

    Args:
        made: whether the networks are optimized for inference.
    """
    networks = inference.networks(inference.dtype if made else None)
    for name in names:
        path = storage.join(inference.shards.directory, name)
        bare_shard(path, output_dir, networks, inference.config.scales)


def loop_rows(inference: Inference, rounds: int) -> list[Row]:
    """Returns rows of our mapper against bare loops and the field's script.

    All of them read, infer and write the first shard.
    """
    torch.set_num_threads(1)
    name = inference.shards.names[0]
    path = inference.shards.paths[0]
    work = inference.make_work()
    ours_dir, bare_dir, field_dir = (
        storage.join(inference.directory, kind) for kind in ("ours", "bare", "field")
    )
    for directory in (bare_dir, field_dir):
        Path(directory).mkdir(parents=True, exist_ok=True)

    def ours() -> None:
        table, _ = work({"images": storage.read_table(path, list(COLUMNS))}, None)
        storage.write_table(storage.join(ours_dir, name), table)

    def field() -> None:
        for method, network in as_trained.items():
            write_field(path, storage.join(field_dir, method), network, inference.config.scales)

    as_trained, optimized = inference.networks(None), inference.networks(inference.dtype)
    rows = []
    what = f"activation inference in {str(inference.dtype).removeprefix('torch.')}, one thread"
    for against, networks in (
        ("a bare loop, same networks", optimized),
        ("a bare loop", as_trained),
    ):
        theirs = partial(bare_shard, path, bare_dir, networks, inference.config.scales)
        rows.append(compare(what, ours, against, theirs, goal=0.95, rounds=rounds))
    against = "image by image, float32 maps through np.save"
    rows.append(compare(what, ours, against, field, goal=2.0, rounds=rounds))
    return rows


def write_field(
    path: str, output_dir: str, network: torch.nn.Module, scales: Sequence[float]
) -> None:
    """Writes the field's files of each image of a shard, for one network."""
    Path(output_dir).mkdir(parents=True, exist_ok=True)
    for image in storage.read_table(path, ["image_id", "image", "image_labels"]).to_pylist():
        stem = Path(output_dir) / image["image_id"]
        field_image(image["image"], image["image_labels"], stem, network, scales)


def storage_rows(inference: Inference, trained: bool) -> list[Row]:
    """Returns rows of stored bytes and best seed mIoU of CAM's maps, ours against the field's.

    Args:
        trained: whether the networks are trained. Seeds of random networks mean nothing, so their
            mIoU has no goal.
    """
    torch.set_num_threads(1)
    work, network = inference.make_work(), inference.networks(None)[BASELINE]
    ours_dir, field_dir = (storage.join(inference.directory, n) for n in ("stored", "stored-field"))
    own_bytes = 0
    for name, path in zip(inference.shards.names, inference.shards.paths, strict=True):
        table, _ = work({"images": storage.read_table(path, list(COLUMNS))}, None)
        storage.write_table(storage.join(ours_dir, name), table)
        own_bytes += _stored_bytes(storage.join(ours_dir, name), BASELINE)
        write_field(path, field_dir, network, inference.config.scales)
    field_bytes = sum(file.stat().st_size for file in Path(field_dir).iterdir())
    own_miou, field_miou = _seed_miou(inference.shards, ours_dir, field_dir)
    num_images = len(inference.shards.names) * inference.shards.images_per_shard
    return [
        row(
            f"stored bytes of CAM, {own_bytes / num_images:.0f} an image",
            f"float32 .npy at stride 4 and full size, {field_bytes / num_images:.0f}",
            [field_bytes / own_bytes],
            goal=50.0,
        ),
        row(
            f"seed mIoU from stored maps, {100 * own_miou:.2f} %, {num_images} images",
            f"from the full-size .npy, {100 * field_miou:.2f} % (within 0.1 point)",
            [1 - abs(own_miou - field_miou)],
            goal=1 - 0.001 if trained else 0,
        ),
    ]


def _stored_bytes(path: str, column: str) -> int:
    """Returns the compressed bytes of a column of a Parquet file."""
    metadata = pq.read_metadata(path)
    column_chunks = [
        metadata.row_group(group).column(number)
        for group in range(metadata.num_row_groups)
        for number in range(metadata.num_columns)
    ]
    return sum(c.total_compressed_size for c in column_chunks if c.path_in_schema == column)


def _seed_miou(shards: Shards, ours_dir: str, field_dir: str) -> tuple[float, float]:
    """Returns the best mIoU of our stored maps, and of the field's full-size maps."""
    num_all_classes = len(shards.description.class_names)
    counts = [ThresholdCounts.zeros(num_all_classes, NUM_LEVELS) for _ in range(2)]
    for name, path in zip(shards.names, shards.paths, strict=True):
        truths = storage.read_table(path, ["image_id", "mask"]).to_pylist()
        stored = storage.read_table(storage.join(ours_dir, name)).to_pylist()
        for image, found in zip(truths, stored, strict=True):
            truth = decode_mask(image["mask"], image["image_id"])
            classes = np.asarray(found["image_labels"])
            maps = unpack_maps(found[BASELINE], classes, *truth.shape)
            field = np.load(
                Path(field_dir) / f"{image['image_id']}.high_res.npy", allow_pickle=False
            )
            for number, activation in enumerate((upsample_stored(maps, truth.shape), field)):
                counts[number] = counts[number] + count_thresholds(
                    activation, classes, truth, num_all_classes, NUM_LEVELS
                )
    own, other = (threshold_curve(count).best_miou for count in counts)
    return own, other


def inference_comparison(inference: Inference, made: bool = False) -> Comparison:
    """Returns the comparison of warm Ray workers with concurrent bare loops.

    Args:
        made: whether the bare loops also use networks optimized for inference. The ratio then shows
            the cost of Ray alone.
    """
    return Comparison(
        what="activation inference",
        against="bare loops, same networks" if made else "bare loops",
        names=inference.shards.names,
        inputs={"images": ShardInput(directory=inference.shards.directory, columns=COLUMNS)},
        make_work=inference.make_work,
        plain=partial(bare_loop, inference, made),
        directory=storage.join(inference.directory, "same" if made else "plain"),
    )
