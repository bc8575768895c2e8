"""Losses and gradients in bfloat16 autocast, which CPUs can compute, are close to float32."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from tests.tiny_tasks import TRAININGS

Make = Callable[..., Any]


@pytest.mark.parametrize("kind", TRAININGS)
def test_gradients_of_mixed_precision_point_where_those_of_float32_do(
    kind: str, make_any_task: Make, make_batch: Make, rows: list[dict[str, Any]]
) -> None:
    task = make_any_task(kind)
    batch = make_batch(task, rows)
    losses, gradients = [], []
    for is_mixed in (False, True):
        torch.manual_seed(0)
        module = task.build().train()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=is_mixed):
            loss, metrics = module(module.prepare(batch), np.random.default_rng(0), True)
        assert loss.dtype == torch.float32
        assert all(torch.isfinite(value) for value in metrics.values())
        loss.backward()
        learnt = [p.grad.flatten() for p in module.network.parameters() if p.grad is not None]
        losses.append(loss.detach())
        gradients.append(torch.cat(learnt))
    torch.testing.assert_close(losses[1], losses[0], rtol=0.05, atol=0.02)
    assert torch.cosine_similarity(*gradients, dim=0) > 0.95
