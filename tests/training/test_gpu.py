"""What only a GPU can show: mixed-precision steps, and the CRF there as on a CPU."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from slams_ray.config import PipelineConfig
from slams_ray.networks.checkpoint import dump_network
from slams_ray.refinement.crf.kernels import CrfKernels
from slams_ray.refinement.crf.mean_field_torch import TorchCrf
from slams_ray.segmentation.training import SegmentationTask
from slams_ray.systems.cam import ClassifierTask
from slams_ray.systems.slams.activation import ActivationTask
from slams_ray.systems.slams.encoder import EncoderTask
from slams_ray.training.optimisation import build_optimizer, train_step

NAMES = ("background", "cat", "dog")


def synthetic_row() -> dict[str, Any]:
    from slams_ray.data.image import encode_mask
    from slams_ray.data.schema import voc_palette

    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (60, 70, 3)).astype(np.uint8)
    mask = rng.integers(0, 3, (60, 70)).astype(np.uint8)
    return {
        "image_id": "a",
        "image": encode_rgb(image),
        "image_labels": [1, 2],
        "pseudo_label": encode_mask(mask, voc_palette(3)),
    }


def encode_rgb(image: np.ndarray) -> bytes:
    import io

    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG")
    return buffer.getvalue()


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["encoder", "classifier", "activation", "segmentation"])
def test_a_mixed_precision_step_is_finite(name: str, tiny_config: PipelineConfig) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no GPU on this machine")
    encoder = EncoderTask(tiny_config.encoder, NAMES)
    classifier = ClassifierTask(tiny_config.classifier, NAMES)
    frozen = [dump_network(t.build().network, t.architecture, NAMES) for t in (encoder, classifier)]
    tasks: dict[str, Any] = {
        "encoder": encoder,
        "classifier": classifier,
        "activation": ActivationTask(
            tiny_config.activation, tiny_config.classifier.backbone, NAMES, *frozen
        ),
        "segmentation": SegmentationTask(tiny_config.segmentation, NAMES),
    }
    task = tasks[name]
    config = replace(task.config.training, amp=True)
    module = task.build().to("cuda", memory_format=torch.channels_last).train()
    optimizer = build_optimizer(module.network, config)
    samples = [task.sampler.sample(synthetic_row(), np.random.default_rng(i)) for i in range(4)]
    batch = {k: torch.from_numpy(np.stack([s[k] for s in samples])).cuda() for k in samples[0]}
    metrics = train_step(module, optimizer, batch, 0, 10, config, 0)
    assert all(torch.isfinite(value) for value in metrics.values())


@pytest.mark.gpu
@pytest.mark.parametrize("num_labels", [2, 5])
def test_the_crf_gives_what_it_gives_on_a_cpu(num_labels: int) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no GPU on this machine")
    rng = np.random.default_rng(num_labels)
    image = rng.integers(0, 256, (60, 80, 3)).astype(np.uint8)
    unary = rng.uniform(0, 4, (num_labels, 60, 80)).astype(np.float32)
    kernels = CrfKernels(
        gaussian_sxy_px=3.0,
        gaussian_compat=3.0,
        bilateral_sxy_px=50.0,
        bilateral_srgb=20.0,
        bilateral_compat=10.0,
    )
    posteriors = [
        TorchCrf(image, num_labels, kernels, name).infer(unary, 10)
        for name in ("cpu", "cuda", "cuda")
    ]
    np.testing.assert_allclose(posteriors[1], posteriors[0], atol=1e-3)
    np.testing.assert_array_equal(posteriors[2], posteriors[1])
