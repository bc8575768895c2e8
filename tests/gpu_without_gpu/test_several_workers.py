"""Forward and loss of a training in a group of two GPU workers, which share BatchNorm statistics.

torch has no fake versions of the kernels of SyncBatchNorm, so this module says what they return.
"""

from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from torch.testing._internal.distributed.fake_pg import FakeStore

from slams_ray.networks.batch_norm import synchronise_batch_norm
from slams_ray.training.task import with_pairs

Make = Callable[..., Any]
NUM_WORKERS = 2


@pytest.fixture
def group() -> Iterator[None]:
    """A process group whose other worker does not exist; collectives return at once."""
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=NUM_WORKERS)
    yield
    dist.destroy_process_group()


@pytest.fixture
def fake_kernels() -> Iterator[None]:
    def per_channel(features: torch.Tensor, *_: Any, **__: Any) -> list[torch.Tensor]:
        return [features.new_empty(features.shape[1], dtype=torch.float32) for _ in range(2)]

    library = torch.library.Library("aten", "IMPL", "Meta")
    library.impl("batch_norm_stats", per_channel)
    library.impl("batch_norm_gather_stats_with_counts", per_channel)
    library.impl("batch_norm_elemt", lambda features, *_: torch.empty_like(features))
    yield
    library._destroy()


@pytest.mark.parametrize("kind", ["encoder", "classifier", "activation", "segmentation"])
def test_every_trained_batch_norm_is_over_both_workers(
    kind: str,
    group: None,
    fake_kernels: None,
    make_task: Make,
    make_batch: Make,
    rows: list[dict[str, Any]],
    faked_cuda: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gather = Mock(wraps=dist.all_gather_single)
    monkeypatch.setattr(dist, "all_gather_single", gather)
    task = make_task(kind)
    module = task.build().train()
    synchronise_batch_norm(module, "cuda")
    norms = [m for m in module.modules() if isinstance(m, nn.SyncBatchNorm) and m.training]
    assert norms
    batch = make_batch(task, rows)
    shares = with_pairs({name: values.numpy() for name, values in batch.items()})
    # Of the workers' statistics, SyncBatchNorm takes those with images: a shape that it must read.
    with faked_cuda(ShapeEnv()) as device:
        on_device = {
            name: torch.empty(v.shape, dtype=torch.from_numpy(v[:0]).dtype, device=device)
            for name, v in shares.items()
        }
        module.to(device).to(memory_format=torch.channels_last)
        with torch.autocast(device.type, dtype=torch.bfloat16):
            loss, _ = module(module.prepare(on_device), np.random.default_rng(0), True)
        assert loss.device == device
        assert loss.dtype == torch.float32
    num_passes = 2 if kind == "activation" else 1
    assert gather.call_count == num_passes * len(norms)
    assert {call.args[1].device for call in gather.call_args_list} == {device}
