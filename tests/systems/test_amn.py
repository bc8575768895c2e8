"""AMN: a network that is told the image labels learns confident pixel labels."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.random import default_rng as draw

from slams_ray.errors import ConfigError
from slams_ray.networks.conditioned_network import ConditionedNetwork
from slams_ray.recipes.smoke import smoke
from slams_ray.stages import pixel_labels
from slams_ray.stages.steps import steps
from slams_ray.systems.label_losses import balanced_loss
from slams_ray.systems.registry import trainings_of

Make = Callable[..., Any]
Rows = list[dict[str, Any]]


def test_the_loss_of_four_pixels_by_hand() -> None:
    of_pixels = [[0.5, 0.25, 0.25], [0.2, 0.2, 0.6], [0.1, 0.8, 0.1], [0.4, 0.3, 0.3]]
    logits = torch.tensor(of_pixels).log().T.reshape(1, 3, 2, 2)
    target = torch.tensor([[[0, 2], [1, 255]]])
    found = balanced_loss(logits, target, 0.4)

    def pixel(own: float, others: tuple[float, float]) -> float:
        return -0.6 * np.log(own) - 0.2 * np.log(others).sum()

    background = pixel(0.5, (0.25, 0.25))
    objects = (pixel(0.6, (0.2, 0.2)) + pixel(0.8, (0.1, 0.1))) / 2
    assert found.item() == pytest.approx((background + objects) / 2, rel=1e-5)


def test_a_side_without_a_pixel_is_left_out() -> None:
    torch.manual_seed(0)
    logits = torch.randn(3, 4, 2, 2)
    target = torch.tensor([[[0, 0], [255, 0]], [[3, 3], [3, 3]], [[255, 255], [255, 255]]])
    found = balanced_loss(logits, target, 0.0)
    log_p = logits.log_softmax(dim=1)
    torch.testing.assert_close(found[0], -log_p[0, 0].flatten()[[0, 1, 3]].mean())
    torch.testing.assert_close(found[1], -log_p[1, 3].mean())
    assert found[2] == 0


def test_labels_are_sampled_at_the_centres_of_cells(make_system_task: Make) -> None:
    task = make_system_task("amn", smoothing=0.0)
    module = task.build().eval()
    target = torch.full((1, 48, 48), 255, dtype=torch.uint8)
    target[0, 4::8, 4::8] = 1
    batch = {
        "image": torch.zeros(1, 48, 48, 3, dtype=torch.uint8),
        "box": torch.tensor([[0, 0, 48, 48]]),
        "labels": torch.tensor([[1, 0, 0]]),
        "target": target,
    }
    batch["kept"] = torch.ones(1, 64, dtype=torch.uint8)
    assert module(batch, draw(0), False)[1]["labelled_pixels"] == 1


def test_a_sample_has_pixel_labels_image_labels_and_dropped_channels(
    make_system_task: Make, rows: Rows
) -> None:
    sampler = make_system_task("amn").sampler
    samples = [sampler.sample(rows[1], draw((0, step))) for step in range(30)]
    assert samples[0]["labels"].tolist() == [0, 1, 1]
    assert set(np.unique(samples[0]["target"])) <= {0, 2, 3, 255}
    assert 0.07 < 1 - np.mean([sample["kept"] for sample in samples]) < 0.13
    again = sampler.sample(rows[1], draw((0, 0)))
    assert all(np.array_equal(value, again[name]) for name, value in samples[0].items())


def test_the_labels_change_what_the_network_sees_and_the_first_convolution_is_frozen(
    make_system_task: Make,
) -> None:
    network = make_system_task("amn").build().network.eval()
    torch.nn.init.normal_(network.head.branches[0].weight, std=0.5)
    images = torch.randn(1, 3, 48, 48)
    first, second = (network(images, torch.tensor([y])) for y in ([1.0, 0, 0], [0, 1.0, 0]))
    assert not torch.allclose(first, second)
    assert not any(p.requires_grad for p in network.backbone.blocks[0].parameters())
    assert all(p.requires_grad for p in network.backbone.blocks[1].parameters())


def test_maps_are_probabilities_scaled_where_the_training_label_is_not_background() -> None:
    torch.manual_seed(0)
    network = ConditionedNetwork("tiny_resnet", 8, 3)
    logits, present = torch.randn(4, 2, 3), torch.tensor([0, 2])
    raw = network.maps_of_logits(logits, present, None)
    torch.testing.assert_close(raw, logits.softmax(dim=0)[[1, 3]])
    labelled = torch.tensor([[True, False, False], [False, False, True]])
    found = network.maps_of_logits(logits, present, labelled)
    assert torch.equal(found[:, ~labelled], raw[:, ~labelled])
    for c in range(2):
        scaled = (raw[c] - raw[c].min()) / (raw[c].max() - raw[c].min())
        torch.testing.assert_close(found[c][labelled], scaled[labelled], atol=1e-4, rtol=1e-4)


def test_training_lowers_the_loss_on_confident_labels(
    make_system_task: Make, make_batch: Make, rows: Rows
) -> None:
    task = make_system_task("amn")
    module = task.build().train()
    batch = make_batch(task, rows)
    optimizer = torch.optim.AdamW(module.network.parameters(), lr=1e-2)
    losses = []
    for step in range(20):
        loss, _ = module(batch, draw(step), False)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    # Smoothed targets have an entropy that no network gets below.
    least = -0.6 * np.log(0.6) - 0.4 * np.log(0.4 / 3)
    assert 0 < losses[-1] - least < 0.2 * (losses[0] - least)


def test_cam_maps_and_their_labels_come_before_the_training() -> None:
    config = replace(smoke(), system="amn", baselines=())
    names = [name for name, _ in steps(config)]
    assert names[: names.index("train_amn") + 1] == [
        "prepare",
        "train_classifier",
        "infer_activation",
        "search_threshold",
        pixel_labels.STAGE,
        "train_amn",
    ]
    assert names[names.index("train_amn") + 1] == "infer_activation"
    assert [t.stage for t in trainings_of(config) if t.pixel_labels] == ["train_amn"]
    assert pixel_labels.STAGE not in [name for name, _ in steps(smoke())]


def test_a_search_of_the_refinement_is_refused_with_amn() -> None:
    config = smoke()
    search = replace(config.search, num_samples=2)
    with pytest.raises(ConfigError, match=r"search.num_samples is 2, expected 0 with .* amn"):
        replace(config, system="amn", search=search)
