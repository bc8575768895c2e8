"""Stage infer_activation: images and networks to CAM and SLAMs maps of the training split."""

from collections.abc import Callable
from functools import partial

import torch

from slams_ray import storage
from slams_ray.artifacts import to_plain
from slams_ray.config import ActivationInferenceConfig, ComputeConfig
from slams_ray.data.source import TRAIN
from slams_ray.data.stored_maps import CAM, SLAMS
from slams_ray.inference.precision import inference_dtype, made_for_inference
from slams_ray.inference.predictors import ActivationPredictor
from slams_ray.inference.shard_work import InferMapper
from slams_ray.networks.checkpoint import load_network
from slams_ray.runtime.cluster import assigned_device
from slams_ray.runtime.shards import Pool, ShardInput, ShardJob, pool, sum_shards
from slams_ray.stages.prepare import PreparedData
from slams_ray.stages.stage import Attempt, Outcome, Result, Workplace, run_stage
from slams_ray.stages.train_activation import ActivationNetworks
from slams_ray.stages.training import MODEL_NAME
from slams_ray.systems.collapse import dead_class_warnings

STAGE = "infer_activation"
COLUMNS = ("image_id", "image", "height", "width", "image_labels")


def run(
    place: Workplace,
    config: ActivationInferenceConfig,
    data: PreparedData,
    networks: ActivationNetworks,
) -> Result:
    paths = {CAM: networks.cam.path(MODEL_NAME), SLAMS: networks.slams.path(MODEL_NAME)}

    def work(attempt: Attempt) -> Outcome:
        job = ShardJob(
            label=STAGE,
            names=data.names(TRAIN),
            inputs={"images": ShardInput(directory=data.images(TRAIN), columns=COLUMNS)},
            output_dir=activations_dir(attempt.output_dir),
            fingerprint=attempt.fingerprint,
            nodes=attempt.nodes,
            devices=attempt.devices,
            make_work=partial(make_mapper, paths, config, data.description.class_names),
            pool=inference_pool(place.compute),
        )
        totals = sum_shards(job, ("num_rows", "num_bytes", "num_maps", "num_empty"))
        num_rows = totals["num_rows"]
        num_maps, num_empty = totals["num_maps"].tolist(), totals["num_empty"].tolist()
        return Outcome(
            num_rows=num_rows,
            metrics={"bytes_per_image": totals["num_bytes"] / max(num_rows, 1)},
            notes={"num_maps": num_maps, "num_empty": num_empty},
            warnings=dead_class_warnings(num_maps, num_empty, data.description.class_names),
        )

    inputs = {
        "prepare": data.images_digest(TRAIN),
        "train_classifier": networks.cam.record.fingerprint,
        "train_activation": networks.slams.record.fingerprint,
    }
    return run_stage(place, STAGE, to_plain(config), inputs, work)


def inference_pool(compute: ComputeConfig) -> Callable[[], Pool]:
    """The actors of every stage that runs a network over shards."""
    return pool(compute.device, compute.gpu_actors, compute.actors_per_gpu)


def make_mapper(
    paths: dict[str, str], config: ActivationInferenceConfig, class_names: tuple[str, ...]
) -> InferMapper:
    """Loads both networks; runs once in every inference actor."""
    device = torch.device(assigned_device())
    dtype = inference_dtype(config.precision, device)
    networks = {
        column: made_for_inference(
            load_network(storage.read_bytes(path), path, "activation_network", class_names),
            dtype,
            device,
        )
        for column, path in paths.items()
    }
    predictor = ActivationPredictor(
        networks,
        scales=config.scales,
        flip=config.flip,
        device=device,
        # The classifier's loss sees the mean logit, in which none is too high to count.
        max_logits={SLAMS: config.max_logit},
    )
    return InferMapper(predictor, len(class_names))


def activations_dir(output_dir: str) -> str:
    return storage.join(output_dir, "activations")
