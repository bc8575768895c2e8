"""Puzzle-CAM: tiles and the whole give the same maps."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from numpy.random import default_rng as draw
from torch import nn

from slams_ray.errors import ConfigError
from slams_ray.networks.map_norms import max_normalised
from slams_ray.recipes.demo import demo
from slams_ray.recipes.smoke import smoke
from slams_ray.systems.maps import crops_of, resized
from slams_ray.systems.puzzle import cut_tiles, join_tiles

Make = Callable[..., Any]
Rows = list[dict[str, Any]]


def test_joined_tiles_are_the_image_and_tiles_stay_with_their_image() -> None:
    images = torch.arange(2 * 3 * 4 * 6.0).view(2, 3, 4, 6)
    tiles = cut_tiles(images)
    assert tiles.shape == (8, 3, 2, 3)
    assert torch.equal(tiles[2], images[0, :, :2, 3:])
    assert torch.equal(tiles[5], images[1, :, 2:, :3])
    assert torch.equal(join_tiles(tiles), images)


def test_a_network_that_sees_single_pixels_gives_the_same_maps_for_tiles(
    make_system_task: Make, make_batch: Make, rows: Rows
) -> None:
    task = make_system_task("puzzle")
    module = task.build().train()
    module.network.backbone.body = nn.Conv2d(3, 64, 1, stride=8)
    _, metrics = module(make_batch(task, rows), draw(0), False)
    assert metrics["loss_reconstruction"] < 1e-6
    torch.testing.assert_close(metrics["loss_tiles"], metrics["loss_classification"])


def test_the_loss_is_its_formula_and_the_last_weight_grows_in_the_first_half(
    make_system_task: Make, make_batch: Make, rows: Rows
) -> None:
    task = make_system_task("puzzle", reconstruction=4.0)
    module = task.build().train()
    batch = make_batch(task, rows)
    for progress, weight in ((0.0, 0.0), (0.25, 2.0), (0.5, 4.0), (0.9, 4.0)):
        module.progress = progress
        loss, metrics = module(batch, draw(0), False)
        expected = metrics["loss_classification"] + metrics["loss_tiles"]
        assert metrics["loss_reconstruction"] > 0
        torch.testing.assert_close(
            loss.detach(), expected + weight * metrics["loss_reconstruction"]
        )


def test_the_difference_counts_image_and_present_classes_alone(
    make_system_task: Make, make_batch: Make, rows: Rows
) -> None:
    task = make_system_task("puzzle")
    module = task.build().train()
    batch = make_batch(task, rows)
    batch["box"] = torch.tensor([[0, 0, 48, 24]] * 4)
    images = torch.zeros(4, 3, 48, 48)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    images[..., :24] = ((batch["image"][:, :, :24] / 255 - mean) / std).permute(0, 3, 1, 2)
    whole, tiled = module.network(images), join_tiles(module.network(cut_tiles(images)))
    expected = []
    for labels, first, second in zip(batch["labels"], whole, tiled, strict=True):
        present = labels.nonzero()[:, 0]
        difference = (first - second).abs()[present, :, :3]
        expected.append(difference.mean() if len(present) else torch.tensor(0.0))
    _, metrics = module(batch, draw(0), False)
    found = metrics["loss_reconstruction"]
    torch.testing.assert_close(found, torch.stack(expected).mean().detach())


def test_training_makes_the_maps_of_tiles_and_of_the_whole_agree(
    make_system_task: Make, make_batch: Make, rows: Rows
) -> None:
    differences = []
    for reconstruction in (0.0, 4.0):
        task = make_system_task("puzzle", reconstruction=reconstruction)
        module = task.build().train()
        module.progress = 0.5
        batch = make_batch(task, rows)
        optimizer = torch.optim.AdamW(module.network.parameters(), lr=3e-3)
        for step in range(25):
            loss, _ = module(batch, draw(step), False)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        images, valid = crops_of(batch)
        with torch.no_grad():
            whole, tiled = module.network(images), join_tiles(module.network(cut_tiles(images)))
        valid = resized(valid, whole.shape[-2:])
        difference = (max_normalised(whole, valid) - max_normalised(tiled, valid)).abs()
        differences.append(difference[batch["labels"].bool()].mean().item())
    assert differences[1] < 0.7 * differences[0]


def test_a_crop_whose_tiles_miss_the_stride_is_refused_before_anything_runs() -> None:
    config = smoke()
    puzzle = replace(config.puzzle, training=replace(config.puzzle.training, crop_px=72))
    with pytest.raises(ConfigError, match=r"puzzle.training.crop_px is 72, .* multiple of 16"):
        replace(config, system="puzzle", puzzle=puzzle)
    assert replace(config, puzzle=puzzle).puzzle.training.crop_px == 72
    assert demo().puzzle.training.crop_px == 80
