"""Stage infer_activation: infers the maps of every system for the training split."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

from slams_ray import storage
from slams_ray.artifacts import to_plain
from slams_ray.config import ActivationInferenceConfig, ComputeConfig
from slams_ray.data.source import TRAIN
from slams_ray.errors import how_to_install
from slams_ray.inference.onnx_runtime import check_onnxruntime
from slams_ray.inference.shard_work import NUM_EMPTY
from slams_ray.runtime import cluster
from slams_ray.runtime.pools import Pool, pool
from slams_ray.runtime.shards import ShardInput, ShardJob, sum_shards
from slams_ray.stages.prepare import PreparedData
from slams_ray.stages.stage import Attempt, Outcome, Result, StageContext, run_stage
from slams_ray.stages.train_systems import MapNetwork, PixelLabels
from slams_ray.systems.collapse import dead_class_warnings
from slams_ray.systems.registry import SYSTEMS
from slams_ray.workers.inference import MapSettings, make_mapper

logger = logging.getLogger(__name__)

STAGE = "infer_activation"
COLUMNS = ("image_id", "image", "height", "width", "image_labels")
ADVICE = f"--compute.cpu-networks onnxruntime is faster ({how_to_install('export')})"


def map_settings(
    networks: Mapping[str, MapNetwork],
    inference: ActivationInferenceConfig,
    class_names: tuple[str, ...],
) -> MapSettings:
    """Returns the settings that infer maps with the given networks."""
    return MapSettings(
        checkpoints={name: network.path for name, network in networks.items()},
        max_logits={name: network.max_logit for name, network in networks.items()},
        inference=inference,
        class_names=class_names,
    )


def run(
    context: StageContext,
    config: ActivationInferenceConfig,
    data: PreparedData,
    networks: Mapping[str, MapNetwork],
    labels: PixelLabels | None = None,
) -> Result:
    """Infers the maps of the training split.

    Args:
        networks: system -> the network that makes its maps.
        labels: labels that one of the networks was trained on and needs; None if there is none.
    """
    class_names = data.description.class_names
    cpu_networks = context.compute.cpu_networks
    if cpu_networks == "onnxruntime":
        check_onnxruntime()
    mapping = replace(map_settings(networks, config, class_names), cpu_networks=cpu_networks)
    counts = ("num_rows", "num_bytes", "num_maps", *(NUM_EMPTY + name for name in networks))

    shards = {"images": ShardInput(directory=data.images(TRAIN), columns=COLUMNS)}
    if labels is not None:
        columns = ("image_id", *labels.columns.columns)
        shards["labels"] = ShardInput(directory=labels.columns.directory, columns=columns)

    def work(attempt: Attempt) -> Outcome:
        job = ShardJob(
            label=STAGE,
            names=data.names(TRAIN),
            inputs=shards,
            output_dir=activations_dir(attempt.output_dir),
            fingerprint=attempt.fingerprint,
            nodes=attempt.nodes,
            devices=attempt.devices,
            make_work=partial(make_mapper, mapping),
            pool=inference_pool(context.compute),
        )
        if is_faster_with_onnxruntime(config, context.compute):
            logger.info("%-18s float32 on CPUs: %s", STAGE, ADVICE)
        totals = sum_shards(job, counts)
        num_rows, num_maps = totals["num_rows"], totals["num_maps"].tolist()
        num_empty = {name: totals[NUM_EMPTY + name].tolist() for name in networks}
        return Outcome(
            num_rows=num_rows,
            metrics={"bytes_per_image": totals["num_bytes"] / max(num_rows * len(networks), 1)},
            notes={"num_maps": num_maps, "num_empty": num_empty},
            warnings=[
                warning
                for name, empty in num_empty.items()
                for warning in dead_class_warnings(
                    SYSTEMS[name].title, SYSTEMS[name].remedy, num_maps, empty, class_names
                )
            ],
        )

    trained = {network.trained.record.stage: network.trained for network in networks.values()}
    inputs = {"prepare": data.images_digest(TRAIN)}
    inputs |= {stage: result.record.fingerprint for stage, result in trained.items()}
    if labels is not None:
        inputs["pixel_labels"] = labels.digest
    settings = to_plain(config) | {"systems": sorted(networks)}
    return run_stage(context, STAGE, settings, inputs, work)


def is_faster_with_onnxruntime(config: ActivationInferenceConfig, compute: ComputeConfig) -> bool:
    """Whether torch computes the networks in float32 on CPUs."""
    if config.precision != "float32" or compute.cpu_networks != "torch":
        return False
    cluster.connect()
    return not cluster.use_gpu(compute.device)


def inference_pool(compute: ComputeConfig) -> Callable[[], Pool]:
    """Returns the pool of actors that run a network over shards."""
    return pool(compute.device, compute.gpu_actors, compute.actors_per_gpu)


def activations_dir(output_dir: str) -> str:
    """Returns the directory of activation shards in an output directory."""
    return storage.join(output_dir, "activations")
