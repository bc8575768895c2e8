"""The equivariance loss of every n-th step has n times its weight."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from numpy.random import default_rng as draw

from slams_ray.config import ActivationConfig, LossConfig
from slams_ray.errors import ConfigError
from slams_ray.training.training import Training
from tests.tiny_tasks import TRAINING

Make = Callable[..., Any]
Rows = list[dict[str, Any]]
EVERY = 3


def gradient_of(module: Any, batch: Any, step: int) -> tuple[torch.Tensor, dict[str, Any]]:
    module.zero_grad()
    module.step = step
    loss, metrics = module(batch, draw(0), False)
    loss.backward()
    return module.network.head.weight.grad.clone(), metrics


def test_the_mean_gradient_of_n_steps_is_that_of_a_loss_in_every_step(
    make_task: Make, make_batch: Make, rows: Rows
) -> None:
    task = make_task("activation", losses=LossConfig(equivariance=2.0))
    batch = make_batch(task, rows)
    module = task.build().eval()
    expected, metrics = gradient_of(module, batch, 0)
    module.config = replace(module.config, equivariance_every=EVERY)
    found = [gradient_of(module, batch, step) for step in range(EVERY, 2 * EVERY)]
    mean = torch.stack([gradient for gradient, _ in found]).mean(dim=0)
    torch.testing.assert_close(mean, expected, atol=1e-7, rtol=1e-4)
    assert not torch.allclose(found[0][0], expected, rtol=1e-2)
    # The logged loss has no weight, so it can be compared between settings.
    torch.testing.assert_close(found[0][1]["loss_equivariance"], metrics["loss_equivariance"])
    assert all("loss_equivariance" not in metrics for _, metrics in found[1:])


def test_the_number_of_the_step_decides_also_after_a_restart(
    make_task: Make, make_batch: Make, rows: Rows
) -> None:
    task = make_task("activation", equivariance_every=EVERY)
    training = Training(
        task=task, config=replace(TRAINING, amp=False), shard_rows=[("0", 4)], sources=[]
    )
    batch = make_batch(task, rows)
    module = training.build().train()
    optimizer = training.optimizer(module)
    passes: list[int] = []
    module.network.register_forward_pre_hook(lambda *_: passes.append(module.step))
    for step in (4, 5, 6, 7):
        training.step(module, optimizer, batch, step, 10)
    assert passes == [4, 5, 6, 6, 7]


@pytest.mark.parametrize(
    "settings",
    [
        {"equivariance_every": 0},
        {
            "equivariance_every": 2,
            "losses": LossConfig(
                background=0.0, regularization=0.0, equivariance=1.0, classification=0.0
            ),
        },
    ],
)
def test_steps_without_any_loss_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"activation\.equivariance_every"):
        ActivationConfig(**settings)
