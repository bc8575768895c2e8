from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.random import default_rng as draw

from slams_ray.data.image import encode_mask

Make = Callable[..., Any]
Rows = list[dict[str, Any]]


def test_padding_and_the_ignore_band_are_255_in_the_target(make_task: Make, rows: Rows) -> None:
    task = make_task("segmentation")
    mask = np.zeros((30, 36), np.uint8)
    mask[:, 18:] = 255
    row = rows[0] | {"pseudo_label": encode_mask(mask, [(0, 0, 0)])}
    sample = task.sampler.sample(row, np.random.default_rng(0))
    top, left, height, width = sample["box"]
    inside = np.zeros((32, 32), bool)
    inside[top : top + height, left : left + width] = True
    assert (sample["target"][~inside] == 255).all()
    assert set(np.unique(sample["target"][inside])) == {0, 255}


def test_ignored_pixels_earn_no_loss_and_no_gradient(
    make_task: Make, make_batch: Make, rows: Rows
) -> None:
    task = make_task("segmentation", frozen=True)
    module = task.build().train()
    batch = make_batch(task, rows)
    batch["target"] = torch.full_like(batch["target"], 255)
    loss, metrics = module(batch, draw(0), True)
    loss.backward()
    assert loss == 0
    assert metrics["labelled_pixels"] == 0
    assert all(p.grad.abs().max() == 0 for p in module.network.parameters())


def test_image_labels_are_not_read(make_task: Make, rows: Rows) -> None:
    row = {k: v for k, v in rows[0].items() if k != "image_labels"}
    sample = make_task("segmentation").sampler.sample(row, np.random.default_rng(0))
    assert 1 in sample["target"]
