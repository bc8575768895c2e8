from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from slams_ray.config import TrainingConfig
from slams_ray.networks.activation_network import ActivationNetwork
from slams_ray.training.optimisation import (
    build_optimizer,
    check_finite,
    learning_rate_factor,
    train_step,
)

Make = Callable[..., Any]


def test_poly_decays_from_1_to_0() -> None:
    config = TrainingConfig(schedule="poly")
    assert learning_rate_factor(0, 100, config) == 1
    assert learning_rate_factor(50, 100, config) == pytest.approx(0.5**0.9)
    assert learning_rate_factor(100, 100, config) == 0


def test_cosine_decays_from_1_over_one_half_to_0() -> None:
    config = TrainingConfig(schedule="cosine")
    assert learning_rate_factor(0, 100, config) == 1
    assert learning_rate_factor(50, 100, config) == pytest.approx(0.5)
    assert learning_rate_factor(100, 100, config) == pytest.approx(0)


@pytest.mark.parametrize("schedule", ["poly", "cosine"])
def test_warm_up_rises_linearly_and_then_leaves_the_decay_alone(schedule: Any) -> None:
    warm, plain = (
        TrainingConfig(schedule=schedule, warmup_steps=4),
        TrainingConfig(schedule=schedule),
    )
    for step in range(100):
        share = min(1, (step + 1) / 4)
        expected = share * learning_rate_factor(step, 100, plain)
        assert learning_rate_factor(step, 100, warm) == pytest.approx(expected)


@pytest.mark.parametrize("schedule", ["poly", "cosine"])
def test_the_rate_never_rises_without_warm_up(schedule: Any) -> None:
    config = TrainingConfig(schedule=schedule)
    factors = [learning_rate_factor(step, 50, config) for step in range(51)]
    assert all(later < earlier for earlier, later in pairwise(factors))


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_the_head_learns_at_a_multiple_of_the_backbones_rate(name: Any) -> None:
    network = ActivationNetwork("tiny_resnet", 8, 2)
    config = TrainingConfig(optimizer=name, learning_rate=0.02, head_multiplier=5)
    backbone, head = build_optimizer(network, config).param_groups
    assert (backbone["lr"], head["lr"]) == pytest.approx((0.02, 0.1))
    assert head["params"] == [network.head.weight]
    assert len(backbone["params"]) + 1 == len(list(network.parameters()))


def test_sgd_has_its_momentum_and_weight_decay_in_their_own_slots() -> None:
    config = TrainingConfig(optimizer="sgd", momentum=0.8, weight_decay=0.03)
    optimizer = build_optimizer(ActivationNetwork("tiny_resnet", 8, 2), config)
    for group in optimizer.param_groups:
        assert (group["momentum"], group["weight_decay"]) == (0.8, 0.03)


class Quadratic(nn.Module):
    """loss = value * scale; two parameters in the two groups."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Linear(1, 1, bias=False)
        self.head = nn.Linear(1, 1, bias=False)
        nn.init.ones_(self.backbone.weight)
        nn.init.ones_(self.head.weight)

    def forward(
        self, batch: dict[str, torch.Tensor], draw: np.random.Generator, observe: bool
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        return (self.backbone.weight + self.head.weight).sum() * batch["scale"].mean(), {}


SGD = TrainingConfig(
    optimizer="sgd", learning_rate=0.1, head_multiplier=2, weight_decay=0, batch_size=1
)


def test_a_step_moves_each_group_by_its_rate_times_the_schedule() -> None:
    module = Quadratic()
    optimizer = build_optimizer(module, SGD)
    result = train_step(module, optimizer, {"scale": torch.ones(1)}, 5, 10, SGD, 0)
    factor = 0.5**0.9
    assert result["loss"] == 2
    assert result["gradient_norm"].item() == pytest.approx(2**0.5)
    assert module.backbone.weight.item() == pytest.approx(1 - 0.1 * factor)
    assert module.head.weight.item() == pytest.approx(1 - 0.2 * factor)


def test_a_long_gradient_is_scaled_down_to_the_configured_norm() -> None:
    config = replace(SGD, max_gradient_norm=2**0.5)
    module = Quadratic()
    optimizer = build_optimizer(module, config)
    train_step(module, optimizer, {"scale": torch.full((1,), 100.0)}, 0, 10, config, 0)
    assert module.backbone.weight.item() == pytest.approx(0.9, abs=1e-4)


def test_without_a_largest_norm_gradients_keep_their_length() -> None:
    config = replace(SGD, max_gradient_norm=None)
    module = Quadratic()
    scaled = {"scale": torch.full((1,), 100.0)}
    result = train_step(module, build_optimizer(module, config), scaled, 0, 10, config, 0)
    assert result["gradient_norm"].item() == pytest.approx(100 * 2**0.5)
    assert module.backbone.weight.item() == pytest.approx(1 - 0.1 * 100)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_is_named_with_its_step(value: float) -> None:
    module = Quadratic()
    optimizer = build_optimizer(module, SGD)
    scales = (1.0, value, 1.0)
    losses = [
        train_step(module, optimizer, {"scale": torch.tensor([scale])}, step, 10, SGD, 0)["loss"]
        for step, scale in enumerate(scales, start=6)
    ]
    check_finite(losses[:1], 7)
    with pytest.raises(FloatingPointError, match=r"at step 7.*learning_rate"):
        check_finite(losses, 9)
