"""Builds the predictor of a checkpoint."""

import torch

from slams_ray import storage
from slams_ray.config import InferenceConfig, PredictionCrfConfig
from slams_ray.errors import ConfigError
from slams_ray.inference.precision import inference_dtype, optimize_for_inference
from slams_ray.inference.segmentation_predictor import SegmentationPredictor
from slams_ray.networks.checkpoint import load_network
from slams_ray.refinement.crf.kernels import kernels_of
from slams_ray.refinement.crf.probabilities import ProbabilityCrf


def check_torch_device(device: str) -> None:
    """Raises ConfigError unless torch has a device of this name."""
    try:
        kind = torch.device(device).type
    except RuntimeError as error:
        raise ConfigError(
            f"device is {device!r}, expected a torch device: cpu, cuda, or cuda:1"
        ) from error
    if kind == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device is {device!r}, but torch finds no GPU: use cpu, or leave it out")


def make_predictor(
    path: str,
    config: InferenceConfig,
    class_names: tuple[str, ...] | None,
    device: str,
    crf: PredictionCrfConfig | None = None,
    batch_size: int | None = None,
) -> SegmentationPredictor:
    """Loads a segmentation network onto a torch device. With class_names None, any classes pass.

    Args:
        crf: refines predictions; None, or one without iterations, refines nothing.
        batch_size: images of one size that share a forward; None chooses by device.
    """
    network = load_network(storage.read_bytes(path), path, "segmentation_network", class_names)
    target = torch.device(device)
    return SegmentationPredictor(
        optimize_for_inference(network, inference_dtype(config.precision, target), target),
        scales=config.scales,
        flip=config.flip,
        device=target,
        batch_size=batch_size,
        refine=_crf(crf, device) if crf is not None and crf.iterations else None,
    )


def _crf(config: PredictionCrfConfig, device: str) -> ProbabilityCrf:
    return ProbabilityCrf(
        kernels=kernels_of(config),
        iterations=config.iterations,
        backend=config.backend,
        device=device,
    )
