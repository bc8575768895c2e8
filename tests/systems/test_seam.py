"""SEAM: maps of two scales agree, and refined maps teach the maps of the other view."""

from collections.abc import Callable
from typing import Any

import torch
from numpy.random import default_rng as draw

from slams_ray.systems.pixel_correlation import (
    View,
    largest_mean,
    min_pooling_loss,
    winners,
    with_background,
)
from slams_ray.systems.seam import seam_losses

Make = Callable[..., Any]
Rows = list[dict[str, Any]]
LABELS = torch.tensor([[1.0, 1.0], [0.0, 0.0]])


def random_view(seed: int, size: int) -> View:
    torch.manual_seed(seed)
    present = LABELS[..., None, None]
    refined = torch.rand(2, 3, size, size) * with_background(LABELS)[..., None, None]
    return View(
        scores=torch.randn(2, 2),
        maps=torch.rand(2, 2, size, size) * present,
        refined=refined,
        valid=torch.ones(2, 1, size, size),
    )


def test_the_winner_of_a_pixel_keeps_its_value_and_background_is_1_minus_the_maximum() -> None:
    maps = torch.tensor([[[[0.9, 0.2]], [[0.3, 0.1]]]], requires_grad=True)
    found = winners(maps)
    assert torch.equal(found, torch.tensor([[[[0.0, 0.8]], [[0.9, 0.0]], [[0.0, 0.0]]]]))
    assert not found.requires_grad


def test_the_largest_fifth_counts_present_classes_on_the_image_alone() -> None:
    difference = torch.arange(30.0).view(1, 3, 2, 5).expand(2, 3, 2, 5)
    valid = torch.ones(2, 1, 2, 5)
    valid[0, ..., 4] = 0
    labels = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    found = largest_mean(difference, labels, valid)
    # Image 0 has 2 x 8 values, up to 18 in class 1; image 1 has all 30.
    assert found.tolist() == [(18 + 17 + 16) / 3, (24 + 25 + 26 + 27 + 28 + 29) / 6]


def test_min_pooling_takes_the_smallest_quarter_of_the_highest_map_of_an_object() -> None:
    refined = torch.tensor([[[[9.0, 9, 9, 9, 9]], [[4, 3, 2, 1, 0]], [[0, 0, 5, 0, 0]]]])
    valid = torch.ones(1, 1, 1, 5)
    assert min_pooling_loss(refined, valid) == 0
    valid[..., 4] = 0
    assert min_pooling_loss(refined, valid) == 1


def test_the_losses_equal_their_formulas() -> None:
    view, small = random_view(0, 6), random_view(1, 3)
    found = seam_losses(view, small, LABELS)
    down = torch.nn.functional.avg_pool2d
    expected = (down(view.maps[0], 2) - small.maps[0]).abs().mean()
    torch.testing.assert_close(found["equivariance"], torch.stack([expected, torch.tensor(0.0)]))
    first = (winners(small.maps) - down(view.refined, 2)).abs()[0].flatten()
    second = (winners(down(view.maps, 2)) - small.refined).abs()[0].flatten()
    largest = [values.sort(descending=True).values[:5].mean() for values in (first, second)]
    torch.testing.assert_close(found["correlation"][0], largest[0] + largest[1])


def test_training_makes_the_maps_of_two_scales_agree(
    make_system_task: Make, make_batch: Make, rows: Rows
) -> None:
    differences = []
    for weight in (0.0, 4.0):
        task = make_system_task("seam", equivariance=weight)
        module = task.build().train()
        batch = make_batch(task, rows)
        optimizer = torch.optim.AdamW(module.network.parameters(), lr=3e-3)
        for step in range(25):
            loss, metrics = module(batch, draw(step), False)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        differences.append(metrics["loss_equivariance"].item())
    assert differences[1] < 0.7 * differences[0]


def test_it_starts_from_the_classifier_whose_weights_learn_slowly(make_system_task: Make) -> None:
    task = make_system_task("seam")
    module = task.build()
    trained = task.trained_classifier().state_dict()
    own = module.network.state_dict()
    assert all(torch.equal(value, own[name]) for name, value in trained.items())
    assert module.slow_parameters == ("backbone.", "head.")


def test_the_evaluation_scores_the_classifier_and_not_refined_maps(
    make_system_task: Make, rows: Rows
) -> None:
    task = make_system_task("seam")
    network = task.build().network.eval()
    image = torch.randn(1, 3, 40, 48)
    expected = network.head(network.backbone(image)).mean(dim=(2, 3))
    torch.testing.assert_close(task.score(network, image), expected)
