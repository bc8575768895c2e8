"""CPN: the maps of two complementary patches add up to the map of the whole."""

import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.random import default_rng as draw

from slams_ray.errors import ConfigError
from slams_ray.systems.cpn import cpn_losses
from slams_ray.systems.crops import grid_regions
from slams_ray.systems.pixel_correlation import View, background_first, winners

Make = Callable[..., Any]
Rows = list[dict[str, Any]]


def test_the_grid_has_equal_square_cells() -> None:
    regions = grid_regions(np.zeros((12, 12, 3)), 16)
    assert np.array_equal(np.unique(regions), np.arange(16))
    assert (np.bincount(regions.flatten()) == 9).all()
    assert (regions[3:6, 9:] == 7).all()


def test_a_sample_hides_whole_cells_and_about_two_fifths_of_the_crop(
    make_system_task: Make, rows: Rows
) -> None:
    sampler = make_system_task("cpn", num_regions=64).sampler
    shares = []
    for step in range(30):
        visible = sampler.sample(rows[1], draw((0, step)))["visible"]
        assert np.array_equal(visible, sampler.sample(rows[1], draw((0, step)))["visible"])
        cells = visible.reshape(8, 6, 8, 6)
        assert (cells == cells[:, :1, :, :1]).all()
        shares.append(1 - visible.mean())
    assert np.mean(shares) == pytest.approx(1 - np.exp(-0.5), abs=0.03)


def random_view(seed: int, labels: torch.Tensor) -> View:
    torch.manual_seed(seed)
    refined = torch.rand(1, 3, 4, 4)
    refined[:, 1:] *= labels[..., None, None]
    return View(
        scores=torch.randn(1, 2),
        maps=torch.rand(1, 2, 4, 4) * labels[..., None, None],
        refined=refined,
        valid=torch.ones(1, 1, 4, 4),
    )


def test_the_losses_equal_their_formulas() -> None:
    labels = torch.tensor([[1.0, 0.0]])
    whole, first, second = views = [random_view(seed, labels) for seed in range(3)]
    share = torch.full((1, 1, 1, 1), 0.6)
    found = cpn_losses(views, share, labels)
    parts = 0.6 * first.maps, 0.4 * second.maps
    refined = 0.6 * first.refined[:, 1:], 0.4 * second.refined[:, 1:]
    additivity = (parts[0] + parts[1] - whole.maps)[0, 0].abs().mean()
    torch.testing.assert_close(found["additivity"][0], additivity)
    rest = (whole.refined[:, 1:] - refined[0] - refined[1])[0, 0].abs().mean()
    torch.testing.assert_close(found["refined_additivity"][0], rest)
    expected = torch.tensor(0.0)
    for part, other in ((parts[0], refined[1]), (parts[1], refined[0])):
        gap = winners((whole.maps - part).clamp(min=0)) - background_first(other)
        # Background and one present class of 16 cells each: the largest 6 values.
        expected = expected + gap[0, :2].abs().flatten().sort().values[-6:].mean()
    torch.testing.assert_close(found["correlation"][0], expected)


def test_maps_that_add_up_have_no_gap_and_the_sum_gets_no_gradient() -> None:
    labels, share = torch.ones(1, 2), torch.full((1, 1, 1, 1), 0.5)
    view = random_view(0, labels)
    assert cpn_losses([view, view, view], share, labels)["additivity"] == 0
    view.maps.requires_grad_()
    other = random_view(1, labels)
    other.maps.requires_grad_()
    cpn_losses([view, other, other], share, labels)["additivity"].sum().backward()
    assert view.maps.grad is not None
    assert other.maps.grad is None


def test_training_narrows_the_gap_between_the_whole_and_its_patches(
    make_system_task: Make, make_batch: Make, rows: Rows
) -> None:
    gaps = []
    for weight in (0.0, 4.0):
        task = make_system_task("cpn", additivity=weight, refined_additivity=weight)
        module = task.build().train()
        batch = make_batch(task, rows)
        optimizer = torch.optim.AdamW(module.network.parameters(), lr=3e-3)
        for step in range(20):
            loss, metrics = module(batch, draw(step), False)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        gaps.append(metrics["loss_additivity"].item())
    assert gaps[1] < 0.8 * gaps[0]


def test_superpixels_without_scikit_image_are_refused_before_training(
    make_system_task: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"cpn.regions is 'slic', .*pip install scikit-image"):
        make_system_task("cpn", regions="slic")
