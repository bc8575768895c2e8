from collections.abc import Callable
from typing import Any

import torch
from numpy.random import default_rng as draw

from slams_ray.systems.slams.losses import encoder_loss

Make = Callable[..., Any]
Rows = list[dict[str, Any]]


def test_semantics_of_absent_classes_get_no_gradient_and_present_ones_do(
    make_task: Make, make_batch: Make, rows: Rows
) -> None:
    task = make_task("encoder")
    module = task.build().train()
    batch = make_batch(task, rows)
    batch["labels"] = torch.tensor([[1, 0, 0], [1, 0, 1], [0, 0, 0], [0, 0, 1]])
    module(batch, draw(0), True)[0].backward()
    gradient = module.network.semantics_table.grad.abs().sum(dim=1)
    assert gradient[2] == 0
    assert (gradient[[0, 1, 3]] > 0).all()


def test_the_encoder_itself_learns_from_absent_classes(
    make_task: Make, make_batch: Make, rows: Rows
) -> None:
    task = make_task("encoder")
    module = task.build().train()
    batch = make_batch(task, rows)
    batch["labels"] = torch.zeros((4, 3), dtype=torch.uint8)
    module(batch, draw(0), True)[0].backward()
    per_category = module.network.head.weight.grad.view(4, 8, -1).abs().sum(dim=(1, 2))
    assert (per_category > 0).all()


def test_without_degradation_the_loss_is_that_of_the_networks_similarities(
    make_task: Make, make_batch: Make, rows: Rows
) -> None:
    task = make_task("encoder")
    module = task.build().eval()
    batch = make_batch(task, rows)
    batch["degradation"] = torch.ones((4, 6, 6))
    batch["box"] = torch.tensor([[0, 0, 32, 32]] * 4)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    images = ((batch["image"] / 255 - mean) / std).permute(0, 3, 1, 2)
    present = torch.cat([torch.ones((4, 1)), batch["labels"]], dim=1)
    expected = encoder_loss(module.network.similarity(images), present).mean()
    torch.testing.assert_close(module(batch, draw(0), True)[0], expected, atol=1e-5, rtol=1e-4)


def test_degradation_changes_what_the_encoder_sees(
    make_task: Make, make_batch: Make, rows: Rows
) -> None:
    task = make_task("encoder")
    module = task.build().eval()
    batch = make_batch(task, rows)
    batch["degradation"] = torch.zeros((4, 6, 6))
    blank, _ = module(batch, draw(0), True)
    batch["image"] = batch["image"].flip(1)
    assert torch.equal(module(batch, draw(0), True)[0], blank)
    batch["degradation"] = torch.ones((4, 6, 6))
    assert not torch.equal(module(batch, draw(0), True)[0], blank)


def test_a_category_whose_embedding_is_0_for_every_image_is_counted_dead(
    make_task: Make, make_batch: Make, rows: Rows
) -> None:
    task = make_task("encoder")
    module = task.build().eval()
    batch = make_batch(task, rows)
    before = module(batch, draw(0), True)[1]["dead_semantics"]
    with torch.no_grad():
        module.network.head.weight.view(4, 8, -1)[2] = 0
    assert before == 0
    assert module(batch, draw(0), True)[1]["dead_semantics"] == 1
