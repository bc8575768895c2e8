from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from numpy.random import default_rng as draw
from torch.nn import functional as F

from slams_ray.config import LossConfig
from slams_ray.data.transforms import normalise
from slams_ray.networks.activation_network import ActivationNetwork
from slams_ray.networks.checkpoint import load_network
from slams_ray.systems.maps import collapse_metrics
from slams_ray.systems.slams import losses

Make = Callable[..., Any]
Rows = list[dict[str, Any]]
NOTHING = {
    "foreground": 0.0,
    "background": 0.0,
    "regularization": 0.0,
    "equivariance": 0.0,
    "complementation": 0.0,
    "classification": 0.0,
}


def test_the_encoder_stays_frozen_while_gradients_flow_through_it(
    make_task: Make, make_batch: Make, rows: Rows
) -> None:
    task = make_task("activation", losses=LossConfig(**NOTHING | {"foreground": 1.0}))
    module = task.build().train()
    before = {k: v.clone() for k, v in module.encoder.state_dict().items()}
    module(make_batch(task, rows), draw(0), True)[0].backward()
    assert not any(m.training for m in module.encoder.modules())
    assert all(p.grad is None for p in module.encoder.parameters())
    assert all(torch.equal(v, before[k]) for k, v in module.encoder.state_dict().items())
    assert module.network.training
    assert module.network.head.weight.grad.abs().sum() > 0


def test_without_a_classifier_training_starts_from_the_weights_of_the_backbone(
    make_task: Make, tmp_path: Path
) -> None:
    task = make_task("activation")
    backbone = ActivationNetwork(**task.architecture).backbone
    torch.save(backbone.body.state_dict(), tmp_path / "backbone.pth")
    task.classifier = None
    task.backbone = replace(task.backbone, weights=str(tmp_path / "backbone.pth"))
    found = task.build().network.backbone.state_dict()
    assert all(torch.equal(value, found[name]) for name, value in backbone.state_dict().items())


def test_training_starts_from_the_cam_classifier(make_task: Make) -> None:
    task = make_task("activation")
    classifier = load_network(task.classifier, "memory", "activation_network")
    network = task.build().network
    assert all(torch.equal(v, classifier.state_dict()[k]) for k, v in network.state_dict().items())


@pytest.mark.parametrize("form", ["cosine", "log"])
@pytest.mark.parametrize("name", [n for n in NOTHING if n != "complementation"])
def test_each_weight_scales_its_own_loss(
    name: str, form: str, make_task: Make, make_batch: Make, rows: Rows
) -> None:
    weights = LossConfig(**NOTHING | {name: 3.0}, form=form)
    task = make_task("activation", losses=weights)
    loss, metrics = task.build().eval()(make_batch(task, rows), draw(0), True)
    assert metrics[f"loss_{name}"] > 0
    torch.testing.assert_close(loss.detach(), 3 * metrics[f"loss_{name}"])


def test_complementation_is_one_of_the_losses(
    make_task: Make, make_batch: Make, rows: Rows
) -> None:
    task = make_task("activation", losses=LossConfig(complementation=1.0))
    module = task.build().eval()
    _, metrics = module(make_batch(task, rows), draw(0), True)
    assert metrics["loss_complementation"] > 0


def test_the_category_losses_equal_a_loop_over_images_and_present_classes(
    make_task: Make, make_batch: Make, rows: Rows
) -> None:
    task = make_task("activation", encoder_input_px=24)
    module = task.build().eval()
    batch = make_batch(task, rows)
    images = normalise(batch["image"], batch["box"])
    maps = module.network(images).sigmoid()

    def resized(tensor: torch.Tensor) -> torch.Tensor:
        return F.interpolate(tensor[None], size=(24, 24), mode="bilinear", align_corners=False)

    expected = {"foreground": [], "background": []}
    for image, labels, activation in zip(images, batch["labels"], maps, strict=True):
        present = [0, *(labels.nonzero().flatten() + 1).tolist()]
        per_class = {"foreground": [], "background": []}
        for k in present[1:]:
            mask, pixels = resized(activation[k - 1 : k]), resized(image)
            foreground = module.encoder.similarity(pixels * mask)[0]
            background = module.encoder.similarity(pixels * (1 - mask))[0]
            rest = [j for j in present if j != k]
            per_class["foreground"].append(
                0.5 * (1 - foreground[k]) + 0.5 * foreground[rest].mean()
            )
            per_class["background"].append(
                0.5 * background[k] + 0.5 * (1 - background[rest]).mean()
            )
        for name, values in per_class.items():
            expected[name].append(torch.stack(values).mean() if values else torch.tensor(0.0))
    _, metrics = module(batch, draw(0), True)
    for name, values in expected.items():
        mean = torch.stack(values).mean().detach()
        torch.testing.assert_close(metrics[f"loss_{name}"], mean, atol=1e-5, rtol=1e-4)


def test_a_filler_replaces_masked_pixels_unless_it_shows_the_class(
    make_task: Make, make_batch: Make, rows: Rows
) -> None:
    weights = LossConfig(**NOTHING | {"foreground": 1.0, "background": 1.0})
    task = make_task(
        "activation", losses=weights, encoder_input_px=32, fill="image", mask="normalised"
    )
    module = task.build().eval()
    # Image 3 shows classes 1, 2 and 3; its filler, image 1, shows 2 and 3.
    batch = {name: value[3:] for name, value in make_batch(task, rows).items()}
    assert batch["filler_labels"].tolist() == [[0, 1, 1]]
    seen: list[torch.Tensor] = []
    module.encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    module(batch, draw(0), True)
    image = normalise(batch["image"], batch["box"])[0]
    other = normalise(batch["filler"], batch["filler_box"])[0]
    foreground, background = seen[0].chunk(2)
    expected = torch.stack([image + other, image, image])
    torch.testing.assert_close(foreground + background, expected)
    assert other.abs().max() > 1


def test_masks_are_cut_at_the_thresholds_of_the_crop_after_resizing(
    make_task: Make, make_batch: Make, rows: Rows
) -> None:
    task = make_task("activation", encoder_input_px=24, binarisation_width=0.05)
    module = task.build().eval()
    batch = {name: value[3:] for name, value in make_batch(task, rows).items()}
    thresholds = batch["mask_threshold"][0]
    assert thresholds.dtype == torch.float32
    assert thresholds.shape == (3,)
    assert ((thresholds >= 0.25) & (thresholds <= 0.75)).all()
    assert len(set(thresholds.tolist())) == 3
    seen: list[torch.Tensor] = []
    module.encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    module(batch, draw(0), True)
    image = normalise(batch["image"], batch["box"])
    size = {"size": (24, 24), "mode": "bilinear", "align_corners": False}
    pixels = F.interpolate(image, **size)
    maps = F.interpolate(module.network(image).sigmoid(), **size)[0]
    foreground, _ = seen[0].chunk(2)
    for k, found in enumerate(foreground):
        mask = 1 / (1 + torch.exp(-(maps[k] - thresholds[k]) / 0.05))
        torch.testing.assert_close(found, pixels[0] * mask, atol=1e-5, rtol=1e-4)


def test_regularization_shrinks_present_maps_or_all(
    make_task: Make, make_batch: Make, rows: Rows
) -> None:
    for regularize in ("present", "all"):
        task = make_task("activation", losses=LossConfig(regularize=regularize))
        module = task.build().eval()
        batch = make_batch(task, rows)
        batch["box"] = torch.tensor([[0, 0, 32, 32]] * 4)
        activation = module.network(normalise(batch["image"])).sigmoid()
        weight = batch["labels"] if regularize == "present" else torch.ones((4, 3))
        expected = losses.activation_regularization(activation, weight, torch.ones((4, 1, 4, 4)))
        found = module(batch, draw(0), True)[1]["loss_regularization"]
        torch.testing.assert_close(found, expected.mean().detach())


def test_a_batch_without_any_label_has_no_category_loss_and_a_finite_gradient(
    make_task: Make, make_batch: Make, rows: Rows
) -> None:
    task = make_task("activation")
    module = task.build().train()
    loss, metrics = module(make_batch(task, [rows[2], rows[2]]), draw(0), True)
    loss.backward()
    assert metrics["loss_foreground"] == metrics["loss_background"] == 0
    assert all(torch.isfinite(p.grad).all() for p in module.network.parameters())


def test_a_map_that_ignores_position_is_equivariant(
    make_task: Make, make_batch: Make, rows: Rows
) -> None:
    task = make_task("activation")
    module = task.build().eval()
    torch.nn.init.zeros_(module.network.head.weight)
    for step in range(4):
        _, metrics = module(make_batch(task, rows), draw(step), True)
        assert metrics["loss_equivariance"] < 1e-6


def test_mirroring_does_not_change_the_consistency_of_a_network_of_single_pixels(
    make_task: Make, make_batch: Make, rows: Rows
) -> None:
    task = make_task("activation")
    module = task.build().eval()
    module.network = torch.nn.Conv2d(3, 3, 1)
    batch = make_batch(task, rows)
    batch["image"] = torch.randint(0, 256, (4, 32, 32, 3), dtype=torch.uint8)
    batch["box"] = torch.tensor([[0, 0, 32, 12]] * 4)
    found = [module(batch, draw(step), True)[1]["loss_equivariance"].item() for step in range(16)]
    half, three_quarters = min(found), max(found)
    assert three_quarters > 1.05 * half > 0
    assert all(min(abs(loss - half), abs(loss - three_quarters)) < 1e-5 for loss in found)


def test_what_lies_under_padding_changes_nothing(
    make_task: Make, make_batch: Make, rows: Rows
) -> None:
    task = make_task("activation")
    module = task.build().eval()
    batch = make_batch(task, rows)
    batch["box"] = torch.tensor([[0, 4, 20, 24]] * 4)
    before, _ = module(batch, draw(0), True)
    batch["image"][:, 20:] = 255
    batch["image"][:, :, :4] = 77
    assert torch.equal(module(batch, draw(0), True)[0], before)


def test_collapse_metrics_tell_a_uniform_map_from_one_with_contrast() -> None:
    labels = torch.tensor([[1.0, 0.0]])
    valid = torch.ones((1, 1, 2, 2))
    activation = torch.full((1, 2, 2, 2), 0.5)
    uniform = collapse_metrics(activation, labels, valid)
    activation[0, 0] = torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    sharp = collapse_metrics(activation, labels, valid)
    assert uniform["activation_mean"] == sharp["activation_mean"] == 0.5
    assert uniform["activation_contrast"] == 0
    assert sharp["activation_contrast"] == 0.5


@pytest.mark.parametrize("observe", [False, True])
def test_the_encoder_sees_only_the_masked_images_whose_loss_has_weight(
    observe: bool, make_task: Make, make_batch: Make, rows: Rows
) -> None:
    weights = LossConfig(foreground=0.0, equivariance=0.0)
    module = make_task("activation", losses=weights).build().train()
    batch = make_batch(make_task("activation"), rows)
    num_pairs = int(batch["labels"].sum())
    seen: list[tuple[int, bool]] = []
    module.encoder.register_forward_pre_hook(
        lambda _, inputs: seen.append((len(inputs[0]), torch.is_grad_enabled()))
    )
    _, metrics = module(batch, draw(0), observe)
    assert seen == [(num_pairs, True)] + [(num_pairs, False)] * observe
    assert ("similarity_foreground" in metrics) is observe
    assert "loss_foreground" not in metrics


def test_what_is_observed_does_not_depend_on_the_weights(
    make_task: Make, make_batch: Make, rows: Rows
) -> None:
    found = []
    for foreground in (0.0, 1.0):
        task = make_task("activation", losses=LossConfig(foreground=foreground))
        found.append(task.build().eval()(make_batch(task, rows), draw(0), True)[1])
    for name in ("similarity_foreground", "similarity_background", "similarity_context"):
        torch.testing.assert_close(found[0][name], found[1][name])


def test_the_transform_of_the_equivariance_loss_depends_on_random_seed_and_step(
    make_task: Make, make_batch: Make, rows: Rows
) -> None:
    task = make_task("activation")
    batch = make_batch(task, rows)
    module = task.build().eval()

    def losses_of(seed: int) -> list[float]:
        return [
            module(batch, draw((seed, step)), False)[1]["loss_equivariance"].item()
            for step in range(12)
        ]

    assert losses_of(0) == losses_of(0)
    assert losses_of(0) != losses_of(1)
    assert len(set(losses_of(0))) > 1
