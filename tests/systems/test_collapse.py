"""Every collapse of docs/method.md, provoked by training or by dead weights, is named."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.random import default_rng as draw

from slams_ray.config import LossConfig
from slams_ray.systems.collapse import (
    ADVICE,
    dead_class_warnings,
    dead_semantics_warnings,
    diagnose_maps,
    map_warnings,
)
from slams_ray.systems.slams.encoder import dead_semantics

Make = Callable[..., Any]
Rows = list[dict[str, Any]]
NOTHING = dict.fromkeys(
    ("foreground", "background", "regularization", "equivariance", "classification"), 0.0
)


def train(task: Any, batch: dict[str, torch.Tensor], num_steps: int) -> dict[str, float]:
    """The metrics of the last step."""
    module = task.build().train()
    optimizer = torch.optim.AdamW(module.network.parameters(), lr=1e-2)
    metrics: dict[str, torch.Tensor] = {}
    for step in range(num_steps):
        loss, metrics = module(batch, draw(step), True)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return {name: float(value) for name, value in metrics.items()}


@pytest.mark.parametrize(
    ("losses", "label", "expected"),
    [
        ({"regularization": 5.0}, None, "all-zero"),
        # Told that every image shows everything, the image-level loss raises every map.
        ({"classification": 5.0}, 1, "all-one"),
        ({"equivariance": 5.0}, None, "uniform"),
    ],
)
def test_a_provoked_collapse_is_named_with_what_to_change(
    losses: dict[str, float],
    label: int | None,
    expected: str,
    make_task: Make,
    make_batch: Make,
    rows: Rows,
) -> None:
    task = make_task("activation", losses=LossConfig(**NOTHING | losses))
    batch = make_batch(task, rows)
    if label is not None:
        batch["labels"] = torch.full_like(batch["labels"], label)
    (warning,) = map_warnings(train(task, batch, 60))
    assert warning.startswith(f"{expected} collapse")
    assert ADVICE[expected] in warning


def test_a_training_that_goes_well_is_not_warned_of(
    make_task: Make, make_batch: Make, rows: Rows
) -> None:
    task = make_task("activation")
    assert map_warnings(train(task, make_batch(task, rows), 10)) == []


@pytest.mark.parametrize(
    ("mean", "contrast", "expected"),
    [
        (0.0, 0.0, "all-zero"),
        (0.02, 0.1, "all-zero"),
        (1.0, 0.0, "all-one"),
        (0.5, 0.01, "uniform"),
        (0.85, 0.02, "uniform"),
        (0.3, 0.3, None),
        (0.97, 0.1, None),
    ],
)
def test_diagnosis(mean: float, contrast: float, expected: str | None) -> None:
    assert diagnose_maps(mean, contrast) == expected


def test_dead_classes_are_named_and_classes_without_images_are_not() -> None:
    names = ("background", "cat", "dog", "cow", "sheep")
    (warning,) = dead_class_warnings(
        "SLAMs", "lower x.y", [0, 10, 10, 0, 20], [0, 10, 9, 0, 19], names
    )
    assert "SLAMs maps of cat, sheep are empty" in warning
    assert "dog" not in warning
    assert warning.endswith("train longer, or lower the learning rate, or lower x.y")
    assert dead_class_warnings("SLAMs", "", [0, 10], [0, 0], names[:2]) == []


def test_a_class_without_similarity_is_named(make_task: Make, rows: Rows) -> None:
    task = make_task("encoder")
    network = task.build().network.eval()
    before = task.summarise([task.evaluate(network, rows)])
    assert dead_semantics(before) == []
    with torch.no_grad():
        network.head.weight.view(4, 8, -1)[2] = 0
    after = task.summarise([task.evaluate(network, rows)])
    assert dead_semantics(after) == ["green"]
    assert "similarity to green is 0" in dead_semantics_warnings(["green"])[0]
    assert np.isfinite(after["mean_average_precision"])
