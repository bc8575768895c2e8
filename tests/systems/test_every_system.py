"""What holds for the network of every system that makes its maps."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from numpy.random import default_rng as draw

from slams_ray.networks.checkpoint import MAP_NETWORKS, dump_network, load_network
from slams_ray.networks.conditioned_network import ConditionedNetwork
from slams_ray.training.training import Training
from tests.tiny_tasks import TRAINED_SYSTEMS

Make = Callable[..., Any]
Rows = list[dict[str, Any]]
WITHOUT_CLASS = 2


@pytest.fixture(params=TRAINED_SYSTEMS)
def task(request: pytest.FixtureRequest, make_system_task: Make) -> Any:
    return make_system_task(request.param)


def module_of(task: Any) -> Any:
    """The training module, whose BatchNorm keeps its statistics: they couple the images."""
    torch.manual_seed(1)
    module = task.build()
    module.freeze_batch_norm = True
    return module.train()


def test_the_gradient_of_a_batch_is_the_mean_over_two_workers(
    task: Any, make_batch: Make, rows: Rows
) -> None:
    module, batch = module_of(task), make_batch(task, rows)
    parameters = [p for p in module.network.parameters() if p.requires_grad]
    whole = torch.autograd.grad(module(batch, draw(3), True)[0], parameters)
    halves = [
        torch.autograd.grad(module({k: v[part] for k, v in batch.items()}, draw(3), True)[0], ps)
        for part, ps in ((slice(0, 2), parameters), (slice(2, 4), parameters))
    ]
    for expected, first, second in zip(whole, *halves, strict=True):
        torch.testing.assert_close((first + second) / 2, expected, atol=1e-5, rtol=1e-3)


def test_an_image_without_a_class_has_a_finite_loss_gradient_and_metrics(
    task: Any, make_batch: Make, rows: Rows
) -> None:
    module, batch = module_of(task), make_batch(task, rows)
    own = slice(WITHOUT_CLASS, WITHOUT_CLASS + 1)
    loss, metrics = module({name: value[own] for name, value in batch.items()}, draw(0), True)
    loss.backward()
    assert loss.isfinite()
    assert all(value.isfinite() and value.shape == () for value in metrics.values())
    gradients = [p.grad for p in module.network.parameters() if p.requires_grad]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)


def test_padding_does_not_change_what_an_image_adds_to_the_loss(
    task: Any, make_batch: Make, rows: Rows
) -> None:
    module, batch = module_of(task).eval(), make_batch(task, rows)
    box = batch["box"].clone()
    loss, _ = module(batch | {"box": box}, draw(0), False)
    filled = batch["image"].clone()
    for image, (top, left, height, width) in zip(filled, box.tolist(), strict=True):
        inside = image[top : top + height, left : left + width].clone()
        image[:] = 99
        image[top : top + height, left : left + width] = inside
    torch.testing.assert_close(module(batch | {"image": filled}, draw(0), False)[0], loss)


def test_the_checkpoint_is_the_network_alone_and_gives_maps_of_every_class(
    task: Any, make_batch: Make, rows: Rows
) -> None:
    module = module_of(task)
    data = Training(task=task, config=task.training, shard_rows=[], sources=[]).dump(module)
    assert data == dump_network(module.exported, task.architecture, task.class_names)
    network = load_network(data, "memory", MAP_NETWORKS, task.class_names)
    # One map for each class, and one for background where the network knows it.
    num_maps = 4 if isinstance(network, ConditionedNetwork) else 3
    assert network(torch.zeros((2, 3, 48, 40))).shape == (2, num_maps, 6, 5)


def test_the_metrics_show_a_collapse_of_the_maps(task: Any, make_batch: Make, rows: Rows) -> None:
    _, metrics = module_of(task)(make_batch(task, rows), draw(0), True)
    if type(task).__name__ != "ClassifierTask":
        assert {"activation_mean", "activation_contrast"} <= set(metrics)
