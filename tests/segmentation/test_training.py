from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.random import default_rng as draw
from torch.nn import functional as F

from slams_ray.config import TrainingConfig
from slams_ray.data.image import encode_mask
from slams_ray.data.transforms import normalise
from slams_ray.segmentation.training import SegmentationTask
from slams_ray.training.optimisation import build_optimizer

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


def changed(task: SegmentationTask, **settings: Any) -> SegmentationTask:
    return SegmentationTask(replace(task.config, **settings), task.class_names)


def with_unequal_labels(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The batch with no label in the second image and few in the third."""
    batch["target"][1] = 255
    batch["target"][2, :, 6:] = 255
    return batch


def test_averaged_over_the_batch_every_labelled_pixel_counts_the_same(
    make_task: Make, make_batch: Make, rows: Rows
) -> None:
    task = changed(make_task("segmentation", frozen=True), averaging="batch")
    module = task.build().train()
    batch = with_unequal_labels(make_batch(task, rows))
    logits = module.network(normalise(batch["image"], batch["box"]))
    resized = F.interpolate(logits, size=(32, 32), mode="bilinear")
    expected = F.cross_entropy(resized, batch["target"].long(), ignore_index=255)
    torch.testing.assert_close(module(batch, draw(0), True)[0], expected)
    of_images = changed(task, averaging="image").build().train()
    of_images.load_state_dict(module.state_dict())
    assert abs(of_images(batch, draw(0), True)[0] - expected) > 1e-4


def test_several_input_scales_add_the_losses_of_each_and_of_their_maximum(
    make_task: Make, make_batch: Make, rows: Rows
) -> None:
    task = changed(make_task("segmentation", frozen=True), input_scales=(0.5, 0.75, 1.0))
    module = task.build().train()
    torch.nn.init.normal_(module.network.head.branches[0].weight, std=0.5)
    batch = make_batch(task, rows)
    images = normalise(batch["image"], batch["box"])
    logits = [
        module.network(F.interpolate(images, size=side, mode="bilinear", antialias=side < 32))
        for side in (16, 24, 32)
    ]
    grown = [F.interpolate(one, size=(4, 4), mode="bilinear") for one in logits]
    everything = [*logits, torch.maximum(torch.maximum(grown[0], grown[1]), grown[2])]
    expected = 0.0
    for one in everything:
        resized = F.interpolate(one, size=(32, 32), mode="bilinear")
        pixel = F.cross_entropy(resized, batch["target"].long(), ignore_index=255, reduction="none")
        labelled = (batch["target"] != 255).sum(dim=(1, 2))
        expected = expected + (pixel.sum(dim=(1, 2)) / labelled).mean()
    torch.testing.assert_close(module(batch, draw(0), True)[0], expected)


def test_the_biases_of_the_head_have_their_own_rate_and_no_decay(make_task: Make) -> None:
    network = make_task("segmentation").build().network
    config = TrainingConfig(learning_rate=0.01, head_multiplier=10, head_bias_multiplier=20)
    backbone, head, biases = build_optimizer(network, config).param_groups
    assert [g["lr"] for g in (backbone, head, biases)] == pytest.approx([0.01, 0.1, 0.2])
    assert [g["weight_decay"] for g in (backbone, head, biases)] == [5e-4, 5e-4, 0]
    assert biases["params"] == [branch.bias for branch in network.head.branches]
    assert head["params"] == [branch.weight for branch in network.head.branches]


def test_a_frozen_affine_part_of_batch_norm_does_not_learn(
    make_task: Make, make_batch: Make, rows: Rows
) -> None:
    task = make_task("segmentation", frozen=True)
    backbone = replace(task.config.backbone, freeze_batch_norm_affine=True)
    module = changed(task, backbone=backbone).build().train()
    module(make_batch(task, rows), draw(0), True)[0].backward()
    for name, parameter in module.network.named_parameters():
        is_norm = name.startswith("backbone.") and parameter.ndim == 1
        assert (parameter.grad is None) is is_norm, name
