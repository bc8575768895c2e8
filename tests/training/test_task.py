"""What holds for each of the four trainings."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.random import default_rng as draw

from slams_ray.config import TrainingConfig
from slams_ray.data.image import decode_mask, encode_mask
from slams_ray.data.schema import voc_palette
from slams_ray.metrics import IGNORE_INDEX
from slams_ray.training.optimisation import build_optimizer, train_step
from slams_ray.training.samples import PseudoLabelledCrops, multi_hot
from slams_ray.training.task import PAIRS, with_pairs

TRAINING = TrainingConfig(crop_px=32, long_side_px=(28, 40))
KINDS = ("encoder", "classifier", "activation", "segmentation")
Make = Callable[..., Any]
Rows = list[dict[str, Any]]


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_gives_a_finite_loss_and_finite_metrics(
    kind: str, make_task: Make, make_batch: Make, rows: Rows
) -> None:
    task = make_task(kind)
    loss, metrics = task.build().train()(make_batch(task, rows), draw(0), True)
    assert loss.shape == ()
    assert loss.requires_grad
    assert torch.isfinite(loss)
    assert metrics
    for name, value in metrics.items():
        assert value.shape == (), name
        assert torch.isfinite(value), name
        assert not value.requires_grad, name


@pytest.mark.parametrize("kind", KINDS)
def test_fifteen_steps_on_one_batch_lower_the_loss(
    kind: str, make_task: Make, make_batch: Make, rows: Rows
) -> None:
    task = make_task(kind)
    module = task.build().train()
    batch = make_batch(task, rows)
    config = task.config.training
    optimizer = build_optimizer(module.network, config)
    losses = [
        train_step(module, optimizer, batch, step, 30, config, 0)["loss"].item()
        for step in range(15)
    ]
    assert np.mean(losses[-3:]) < 0.9 * losses[0]


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_of_a_batch_is_the_mean_over_its_images(
    kind: str, make_task: Make, make_batch: Make, rows: Rows
) -> None:
    task = make_task(kind, frozen=True)
    module = task.build().train()
    batch = make_batch(task, rows)
    whole, _ = module(batch, draw(0), True)
    parts = [
        module({k: v[i : i + 1] for k, v in batch.items()}, draw(0), True)[0]
        for i in range(len(rows))
    ]
    torch.testing.assert_close(whole, torch.stack(parts).mean(), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_of_a_batch_is_the_mean_over_two_workers(
    kind: str, make_task: Make, make_batch: Make, rows: Rows
) -> None:
    task = make_task(kind, frozen=True)
    module = task.build().train()
    batch = make_batch(task, rows)
    parameters = list(module.network.parameters())
    whole = torch.autograd.grad(module(batch, draw(3), True)[0], parameters)
    halves = [
        torch.autograd.grad(
            module({k: v[part] for k, v in batch.items()}, draw(3), True)[0], parameters
        )
        for part in (slice(0, 2), slice(2, 4))
    ]
    for expected, first, second in zip(whole, *halves, strict=True):
        torch.testing.assert_close((first + second) / 2, expected, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("frozen", [False, True])
def test_batch_norm_learns_statistics_unless_frozen(
    kind: str, frozen: bool, make_task: Make, make_batch: Make, rows: Rows
) -> None:
    task = make_task(kind, frozen=frozen)
    module = task.build().train()
    before = {k: v.clone() for k, v in module.network.named_buffers()}
    module(make_batch(task, rows), draw(0), True)
    unchanged = all(torch.equal(v, before[k]) for k, v in module.network.named_buffers())
    assert unchanged is frozen


@pytest.mark.parametrize("kind", KINDS)
def test_samples_have_the_shapes_and_types_of_the_batch(
    kind: str, make_task: Make, rows: Rows
) -> None:
    sample = make_task(kind).sampler.sample(rows[1], np.random.default_rng(0))
    expected = {"image": ((32, 32, 3), np.uint8), "box": ((4,), np.int32)}
    if kind == "segmentation":
        expected["target"] = ((32, 32), np.uint8)
    else:
        expected["labels"] = ((3,), np.uint8)
        assert sample["labels"].tolist() == [0, 1, 1]
    if kind == "encoder":
        expected["degradation"] = ((6, 6), np.float32)
    assert {k: (v.shape, v.dtype) for k, v in sample.items()} == expected


@pytest.mark.parametrize("kind", KINDS)
def test_a_sample_depends_only_on_its_row_and_generator(
    kind: str, make_task: Make, rows: Rows
) -> None:
    task = make_task(kind)
    first, again = (task.sampler.sample(rows[3], np.random.default_rng(5)) for _ in range(2))
    assert all(np.array_equal(first[name], again[name]) for name in first)


@pytest.mark.parametrize("kind", ["encoder", "classifier", "activation"])
def test_an_evaluation_split_over_workers_gives_the_map_of_the_whole(
    kind: str, make_task: Make, rows: Rows
) -> None:
    task = make_task(kind)
    network = task.build().network.eval()
    whole = task.summarise([task.evaluate(network, rows)])
    parts = task.summarise([task.evaluate(network, rows[:3]), task.evaluate(network, rows[3:])])
    assert 0 < whole["mean_average_precision"] <= 1
    assert parts == whole
    empty = task.evaluate(network, [])
    assert empty["scores"].shape == empty["labels"].shape == (0, 3)


def test_colour_jitter_changes_colours_inside_the_crop_and_nothing_else(rows: Rows) -> None:
    plain, jittered = (
        PseudoLabelledCrops(replace(TRAINING, colour_jitter=ranges)).sample(
            rows[3], np.random.default_rng(5)
        )
        for ranges in ((0.0, 0.0, 0.0, 0.0), (0.3, 0.3, 0.3, 0.1))
    )
    assert np.array_equal(plain["box"], jittered["box"])
    assert np.array_equal(plain["target"], jittered["target"])
    top, left, height, width = plain["box"]
    inside = np.zeros((32, 32), bool)
    inside[top : top + height, left : left + width] = True
    differs = (plain["image"] != jittered["image"]).any(axis=2)
    assert differs[inside].mean() > 0.9
    assert not differs[~inside].any()


def test_masks_replace_pseudo_labels_where_there_are_masks(rows: Rows) -> None:
    def target(mask: np.ndarray | None, learn_masks: bool) -> np.ndarray:
        encoded = None if mask is None else encode_mask(mask, voc_palette(4))
        row = {**rows[3], "mask": encoded}
        sampler = PseudoLabelledCrops(TRAINING, learn_masks)
        return sampler.sample(row, np.random.default_rng(5))["target"]

    size = decode_mask(rows[3]["pseudo_label"], rows[3]["image_id"]).shape
    mask = np.full(size, 3, np.uint8)
    mask[: size[0] // 2] = IGNORE_INDEX
    learnt, pseudo = target(mask, True), target(None, False)
    assert set(np.unique(learnt)) == {3, IGNORE_INDEX}
    assert not np.array_equal(learnt, pseudo)
    assert np.array_equal(target(None, True), pseudo)
    assert np.array_equal(target(mask, False), pseudo)


def test_multi_hot_puts_class_1_first() -> None:
    assert multi_hot([1, 3], 4).tolist() == [1, 0, 1, 0]
    assert multi_hot([], 2).tolist() == [0, 0]


@pytest.mark.parametrize("accumulation_steps", [1, 3])
@pytest.mark.parametrize("masked_classes", [None, 1])
def test_pairs_that_come_with_the_batch_are_those_that_the_loss_would_find(
    masked_classes: int | None,
    accumulation_steps: int,
    make_task: Make,
    make_batch: Make,
    rows: Rows,
) -> None:
    task = make_task("activation", frozen=True, masked_classes=masked_classes)
    batch = make_batch(task, rows)
    completed = with_pairs({name: values.numpy() for name, values in batch.items()})
    pairs = completed[PAIRS].tolist()
    present = [[0, 0], [1, 1], [1, 2], [3, 0], [3, 1], [3, 2]]
    if masked_classes is None:
        assert pairs == present
    else:
        assert [image for image, _ in pairs] == [0, 1, 3]
        assert all(pair in present for pair in pairs)
    training = replace(task.training, accumulation_steps=accumulation_steps)
    metrics = []
    for given in (batch, {name: torch.from_numpy(values) for name, values in completed.items()}):
        module = task.build().train()
        optimizer = build_optimizer(module.network, training)
        metrics.append(train_step(module, optimizer, given, 0, 10, training, 0))
    assert metrics[0].keys() == metrics[1].keys()
    assert all(torch.equal(value, metrics[1][name]) for name, value in metrics[0].items())


def test_samples_without_labels_get_no_pairs() -> None:
    assert with_pairs({"target": np.zeros((2, 3, 3))}).keys() == {"target"}
