"""Work of a process that infers maps."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from slams_ray import storage
from slams_ray.config import ActivationInferenceConfig
from slams_ray.inference.activation_predictor import ActivationPredictor
from slams_ray.inference.onnx_runtime import with_onnxruntime
from slams_ray.inference.precision import inference_dtype, optimize_for_inference
from slams_ray.inference.shard_work import InferMapper
from slams_ray.networks.checkpoint import MAP_NETWORKS, load_network
from slams_ray.runtime.cluster import assigned_device


@dataclass(frozen=True, kw_only=True)
class MapSettings:
    """Settings of an inference process.

    Attributes:
        checkpoints: system -> path of its network.
        max_logits: system -> value that higher logits are clipped to; None clips nothing.
        cpu_networks: see `ComputeConfig`.
    """

    checkpoints: Mapping[str, str]
    max_logits: Mapping[str, float | None]
    inference: ActivationInferenceConfig
    class_names: tuple[str, ...]
    cpu_networks: str = "torch"


def make_mapper(settings: MapSettings) -> InferMapper:
    """Loads the networks. It runs once in every inference actor."""
    device = torch.device(assigned_device())
    dtype = inference_dtype(settings.inference.precision, device)
    networks = {
        system: optimize_for_inference(
            load_network(storage.read_bytes(path), path, MAP_NETWORKS, settings.class_names),
            dtype,
            device,
        )
        for system, path in settings.checkpoints.items()
    }
    if settings.cpu_networks == "onnxruntime" and device.type == "cpu" and dtype == torch.float32:
        networks = {system: with_onnxruntime(network) for system, network in networks.items()}
    predictor = ActivationPredictor(
        networks,
        scales=settings.inference.scales,
        flip=settings.inference.flip,
        device=device,
        max_logits=settings.max_logits,
    )
    return InferMapper(predictor, len(settings.class_names))
