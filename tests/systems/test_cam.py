from collections.abc import Callable
from typing import Any

import torch
from numpy.random import default_rng as draw

from slams_ray.data.transforms import normalise
from slams_ray.systems.classification import classifier_loss

Make = Callable[..., Any]
Rows = list[dict[str, Any]]


def test_scores_are_the_mean_of_the_maps_over_what_is_image(
    make_task: Make, make_batch: Make, rows: Rows
) -> None:
    task = make_task("classifier")
    module = task.build().eval()
    batch = make_batch(task, rows)
    batch["box"] = torch.tensor([[0, 8, 16, 24]] * 4)
    logits = module.network(normalise(batch["image"], batch["box"]))
    scores = logits[:, :, :2, 1:].mean(dim=(2, 3))
    loss, metrics = module(batch, draw(0), True)
    torch.testing.assert_close(loss, classifier_loss(scores, batch["labels"]).mean())
    correct = (scores > 0) == batch["labels"].bool()
    assert metrics["label_accuracy"].item() == correct.float().mean().item()
