"""OC-CSE and GAIN: the judge of erased images stays as it is, and teaches the maps."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from numpy.random import default_rng as draw

from slams_ray.config import OccseConfig
from slams_ray.networks.checkpoint import dump_network
from slams_ray.networks.frozen_batch_norm import merge_frozen_batch_norm, merged_once
from slams_ray.systems.classification import classifier_loss
from slams_ray.systems.crops import NO_CLASS
from slams_ray.systems.occse import erasing_mask, judged_metrics

Make = Callable[..., Any]
Rows = list[dict[str, Any]]
GAIN: dict[str, Any] = {"judge": "self", "target": "score", "mask": "sigmoid", "weight": (1.0, 1.0)}
FORMS: list[dict[str, Any]] = [{}, GAIN]


@pytest.mark.parametrize("form", FORMS, ids=["OC-CSE", "GAIN"])
def test_the_judge_keeps_parameters_and_statistics_and_the_head_gets_a_gradient(
    form: dict[str, Any], make_system_task: Make, make_batch: Make, rows: Rows
) -> None:
    task = make_system_task("occse", **form)
    module = task.build().train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    _, metrics = module(make_batch(task, rows), draw(0), False)
    loss, _ = module(make_batch(task, rows), draw(0), False)
    # Without the classification loss only the judge's loss is left.
    module.zero_grad()
    (loss - metrics["loss_classification"]).backward()
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    if module.judge is not None:
        assert not any(m.training for m in module.judge.modules())
        assert all(p.grad is None for p in module.judge.parameters())
    assert module.network.head.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("form", FORMS, ids=["OC-CSE", "GAIN"])
def test_the_judge_gives_gradients_to_images_alone(
    form: dict[str, Any], make_system_task: Make, make_batch: Make, rows: Rows
) -> None:
    module = make_system_task("occse", **form).build().train()
    merge_frozen_batch_norm(module.network)
    images = torch.randn(2, 3, 32, 32, requires_grad=True)
    with merged_once(module.network):
        module._judged(images, torch.ones(2, 1, 32, 32)).sum().backward()
    assert images.grad is not None
    assert images.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in module.parameters())


@pytest.mark.parametrize("form", FORMS, ids=["OC-CSE", "GAIN"])
def test_the_judges_loss_alone_reaches_the_maps(
    form: dict[str, Any], make_system_task: Make, make_batch: Make, rows: Rows
) -> None:
    task = make_system_task("occse", **form)
    gradients = []
    for weight in ((0.0, 0.0), (1.0, 1.0)):
        torch.manual_seed(0)
        task.config = OccseConfig(**{**vars(task.config), "weight": weight})
        module = task.build().train()
        module(make_batch(task, rows), draw(0), False)[0].backward()
        gradients.append(module.network.head.weight.grad)
    assert (gradients[1] - gradients[0]).abs().max() > 1e-5


def test_the_loss_of_the_judge_equals_a_loop_over_images(
    make_system_task: Make, make_batch: Make, rows: Rows
) -> None:
    task = make_system_task("occse")
    module = task.build().eval()
    batch = make_batch(task, rows)
    batch["box"] = torch.tensor([[0, 0, 48, 48]] * 4)
    _, metrics = module(batch, draw(0), False)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    images = ((batch["image"] / 255 - mean) / std).permute(0, 3, 1, 2)
    expected = []
    for image, labels, t in zip(images, batch["labels"], batch["erased"].tolist(), strict=True):
        if t == NO_CLASS:
            expected.append(torch.tensor(0.0))
            continue
        own = module.network(image[None])[:, t : t + 1].relu()
        grown = torch.nn.functional.interpolate(own / (own.max() + 1e-5), size=48, mode="bilinear")
        target = labels.clone()
        target[t] = 0
        scores = module.judge(image[None] * (1 - grown)).mean(dim=(2, 3))
        expected.append(classifier_loss(scores, target[None])[0])
    torch.testing.assert_close(metrics["loss_erased"], torch.stack(expected).mean().detach())


@pytest.mark.parametrize("mask", ["linear", "sigmoid"])
def test_a_full_map_leaves_grey_and_padding_and_images_without_a_class_are_kept(mask: Any) -> None:
    config = OccseConfig(mask=mask, mask_slope=100)
    pixels = torch.ones(2, 1, 16, 16)
    pixels[:, :, :8] = 0
    chosen = torch.tensor([[0.0, 1, 0], [0, 0, 0]])
    found = erasing_mask(torch.ones(2, 3, 2, 2), chosen, pixels, config)
    assert found[0, 0, 8:].min() == pytest.approx(1)
    assert found[0, 0, :8].max() == 0
    assert found[1].max() == 0


def test_the_drawn_class_is_present_and_follows_from_the_generator(
    make_system_task: Make, rows: Rows
) -> None:
    sampler = make_system_task("occse").sampler
    for row in rows:
        drawn = [int(sampler.sample(row, draw((0, step)))["erased"]) for step in range(40)]
        assert drawn == [int(sampler.sample(row, draw((0, step)))["erased"]) for step in range(40)]
        present = {label - 1 for label in row["image_labels"]} or {NO_CLASS}
        assert set(drawn) == present


def test_the_weight_of_the_judge_grows_over_the_training(
    make_system_task: Make, make_batch: Make, rows: Rows
) -> None:
    task = make_system_task("occse")
    module = task.build().train()
    for progress, weight in ((0.0, 0.3), (0.5, 0.65)):
        module.progress = progress
        loss, metrics = module(make_batch(task, rows), draw(0), False)
        expected = metrics["loss_classification"] + weight * metrics["loss_erased"]
        torch.testing.assert_close(loss.detach(), expected)


def test_the_judged_scores_are_told_for_the_erased_class_and_for_the_others() -> None:
    before, after = torch.tensor([[4.0, 2, 9], [5, 5, 5]]), torch.tensor([[1.0, 3, 9], [7, 7, 7]])
    labels, chosen = torch.tensor([[1.0, 1, 0], [0, 0, 0]]), torch.tensor([[1.0, 0, 0], [0, 0, 0]])
    assert judged_metrics(before, after, labels, chosen) == {
        "judged_erased_before": 4,
        "judged_erased_after": 1,
        "judged_others_before": 2,
        "judged_others_after": 3,
    }


def test_the_judges_score_of_the_erased_class_falls_and_those_of_the_others_stay(
    make_task: Make, make_system_task: Make, make_batch: Make, rows: Rows
) -> None:
    task = make_system_task("occse", weight=(1.0, 1.0), initialise_from_cam=False)
    batch = make_batch(task, rows)
    judge = make_task("classifier").build().train()
    run(judge, batch, 80)
    task.classifier = dump_network(judge.network, task.architecture, task.class_names)
    history = run(task.build().train(), batch, 25)

    def fall(name: str) -> float:
        return history[0][name] - history[-1][name]

    assert fall("judged_erased_after") > 1
    assert fall("judged_others_after") < 0.5 * fall("judged_erased_after")
    assert fall("loss_erased") > 0.5 * history[0]["loss_erased"]
    assert fall("judged_erased_before") == pytest.approx(0, abs=1e-4)


def run(module: Any, batch: dict[str, torch.Tensor], num_steps: int) -> list[dict[str, float]]:
    """The metrics of each step."""
    optimizer = torch.optim.AdamW(module.network.parameters(), lr=3e-3)
    history = []
    for step in range(num_steps):
        loss, metrics = module(batch, draw(step), True)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append({name: float(value) for name, value in metrics.items()})
    return history
