"""Forward and loss of every training on a CUDA device with bfloat16 autocast."""

from collections.abc import Callable
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from slams_ray.data.transforms import normalise
from slams_ray.networks.batch_norm import synchronise_batch_norm
from slams_ray.training.task import with_pairs
from tests.tiny_tasks import TRAININGS

Make = Callable[..., Any]


@pytest.mark.parametrize("kind", TRAININGS)
def test_loss_and_metrics_are_float32_on_the_device(
    kind: str,
    make_any_task: Make,
    make_batch: Make,
    rows: list[dict[str, Any]],
    faked_cuda: Make,
) -> None:
    task = make_any_task(kind)
    module = task.build().train()
    synchronise_batch_norm(module, "cuda")
    module.convert_frozen(torch.bfloat16)
    batch = make_batch(task, rows)
    shares = with_pairs({name: values.numpy() for name, values in batch.items()})
    # A fake tensor raises where a shape or a number would wait for values of the device.
    with faked_cuda() as device:
        on_device = {
            name: torch.empty(v.shape, dtype=torch.from_numpy(v[:0]).dtype, device=device)
            for name, v in shares.items()
        }
        module.to(device)
        with torch.autocast(device.type, dtype=torch.bfloat16):
            loss, metrics = module(module.prepare(on_device), np.random.default_rng(0), True)
        assert loss.device == device
        assert loss.dtype == torch.float32
        assert {value.device for value in metrics.values()} <= {device}
        assert all(value.shape == () for value in metrics.values())


def test_a_network_left_on_the_cpu_is_found(
    make_system_task: Make, make_batch: Make, rows: list[dict[str, Any]], faked_cuda: Make
) -> None:
    task = make_system_task("cam")
    module, batch = task.build().train(), make_batch(task, rows)
    with faked_cuda() as device:
        images = torch.empty(batch["image"].shape, dtype=torch.uint8, device=device)
        module.to(torch.device("cpu"))
        with pytest.raises(RuntimeError, match="device"):
            module.network(images.permute(0, 3, 1, 2).float())


@pytest.mark.parametrize("kind", ["encoder", "cam", "occse", "seam", "mctformer"])
def test_validation_takes_images_of_one_size_together(
    kind: str,
    make_any_task: Make,
    rows: list[dict[str, Any]],
    faked_cuda: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    task = make_any_task(kind)
    network = task.build().network.eval()
    score = Mock(wraps=task.score)
    monkeypatch.setattr(task, "score", score)
    with faked_cuda() as device:
        result = task.evaluate(network.to(device), rows)
    (call,) = score.call_args_list
    assert len(call.args[1]) == len(rows)
    assert result["scores"].shape == result["labels"].shape == (len(rows), 3)


def test_crops_reach_the_network_channels_last(faked_cuda: Make) -> None:
    with faked_cuda() as device:
        images = torch.empty((2, 32, 32, 3), dtype=torch.uint8, device=device)
        boxes = torch.empty((2, 4), dtype=torch.int32, device=device)
        assert normalise(images, boxes).is_contiguous(memory_format=torch.channels_last)
