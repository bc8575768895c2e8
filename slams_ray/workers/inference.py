"""Work of a process that infers maps."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from slams_ray import storage
from slams_ray.config import ActivationInferenceConfig
from slams_ray.inference.activation_predictor import ActivationPredictor
from slams_ray.inference.joint_network import grouped, parts
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
    loaded = {
        system: load_network(storage.read_bytes(path), path, MAP_NETWORKS, settings.class_names)
        for system, path in settings.checkpoints.items()
    }
    by_onnxruntime = settings.cpu_networks == "onnxruntime" and device.type == "cpu"
    networks: dict[str, nn.Module] = {}
    for systems, network in grouped(loaded):
        network = optimize_for_inference(network, dtype, device)
        if by_onnxruntime and dtype == torch.float32:
            network = with_onnxruntime(network)
        networks |= {systems[0]: network} if len(systems) == 1 else parts(network, systems)
    predictor = ActivationPredictor(
        networks,
        scales=settings.inference.scales,
        flip=settings.inference.flip,
        device=device,
        max_logits=settings.max_logits,
    )
    return InferMapper(predictor, len(settings.class_names))
