"""ReCAM: features under each map are told apart by a softmax classifier."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from numpy.random import default_rng as draw

from slams_ray.systems.recam import (
    RecamNetwork,
    features_of_classes,
    softmax_accuracy,
    softmax_loss,
)
from slams_ray.training.training import Training

Make = Callable[..., Any]
Rows = list[dict[str, Any]]


def test_the_features_of_a_class_are_the_mean_over_the_image_of_features_times_map() -> None:
    torch.manual_seed(0)
    features, maps = torch.rand(2, 5, 4, 3), torch.rand(2, 3, 4, 3)
    valid = torch.ones(2, 1, 4, 3)
    valid[1, :, :2] = 0
    found = features_of_classes(features, maps, valid)
    for c in range(3):
        torch.testing.assert_close(found[0, c], (features[0] * maps[0, c]).mean(dim=(1, 2)))
        inside = features[1, :, 2:] * maps[1, c, 2:]
        torch.testing.assert_close(found[1, c], inside.mean(dim=(1, 2)))


def test_the_softmax_loss_is_the_mean_over_present_classes_of_each_image() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(3, 4, 4), torch.tensor([[1, 0, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0]])
    found = softmax_loss(logits, labels.float())
    log_p = logits.log_softmax(dim=2)
    torch.testing.assert_close(found[0], -(log_p[0, 0, 0] + log_p[0, 2, 2]) / 2)
    torch.testing.assert_close(found[1], -log_p[1, 3, 3])
    assert found[2] == 0


def test_the_softmax_accuracy_counts_present_classes_alone() -> None:
    logits = torch.tensor([[[9.0, 0, 0], [9, 0, 0], [0, 0, 9]]])
    assert softmax_accuracy(logits, torch.tensor([[1.0, 1, 0]])) == 0.5
    assert softmax_accuracy(logits, torch.zeros(1, 3)) == 0


def test_one_present_class_still_trains_the_second_head(
    make_system_task: Make, make_batch: Make, rows: Rows
) -> None:
    task = make_system_task("recam")
    module = task.build().train()
    batch = {name: value[:1] for name, value in make_batch(task, rows).items()}
    assert batch["labels"].sum() == 1
    _, metrics = module(batch, draw(0), True)
    assert metrics["loss_softmax"] > 0
    module(batch, draw(0), True)[0].backward()
    assert module.network.second_head.weight.grad.abs().sum() > 0


def test_the_exported_network_equals_the_formula_with_two_heads() -> None:
    torch.manual_seed(0)
    network = RecamNetwork(backbone_name="tiny_resnet", output_stride=8, num_classes=3).eval()
    images = torch.randn(2, 3, 32, 24)
    features = network.backbone(images)
    weights = network.head.weight[:, :, 0, 0] * network.second_head.weight
    expected = torch.einsum("cf,bfhw->bchw", weights, features)
    torch.testing.assert_close(network.folded().eval()(images), expected)


def test_it_starts_from_the_classifier_and_only_the_second_head_is_new(
    make_system_task: Make,
) -> None:
    task = make_system_task("recam")
    module = task.build()
    trained = task.trained_classifier().state_dict()
    own = module.network.state_dict()
    assert set(own) - set(trained) == {"second_head.weight"}
    assert all(torch.equal(value, own[name]) for name, value in trained.items())
    training = Training(task=task, config=task.training, shard_rows=[], sources=[])
    slow, fast = training.optimizer(module).param_groups
    assert fast["params"] == [module.network.second_head.weight]
    assert fast["peak_lr"] == pytest.approx(10 * slow["peak_lr"])


def test_training_raises_the_softmax_accuracy(
    make_system_task: Make, make_batch: Make, rows: Rows
) -> None:
    task = make_system_task("recam")
    module = task.build().train()
    batch = make_batch(task, rows)
    second = module.network.second_head
    others = [p for n, p in module.network.named_parameters() if not n.startswith("second")]
    optimizer = torch.optim.AdamW(
        [{"params": second.parameters()}, {"params": others, "lr": 1e-4}], lr=0.1
    )
    found = []
    for step in range(40):
        loss, metrics = module(batch, draw(step), True)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append((metrics["softmax_accuracy"].item(), metrics["loss_softmax"].item()))
    assert found[-1][0] == 1
    assert found[0][0] < 1
    assert found[-1][1] < 0.5 * found[0][1]
