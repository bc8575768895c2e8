"""Losses of pixel labels."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.random import default_rng as draw

from slams_ray.config import LossConfig
from slams_ray.recipes.smoke import smoke
from slams_ray.stages.steps import steps
from slams_ray.systems.label_losses import pseudo_label_loss
from slams_ray.systems.registry import trainings_of

Make = Callable[..., Any]
Rows = list[dict[str, Any]]


def naive_loss(logits: np.ndarray, target: np.ndarray, labels: np.ndarray) -> float:
    """One image, whose target has the size of the logits."""
    sides: dict[bool, list[float]] = {True: [], False: []}
    present = [0, *(np.flatnonzero(labels) + 1)]
    for y, x in np.ndindex(target.shape):
        if target[y, x] == 255:
            continue
        scores = [0.0 if c == 0 else logits[c - 1, y, x] for c in present]
        own = 0.0 if target[y, x] == 0 else logits[target[y, x] - 1, y, x]
        loss = float(np.log(np.exp(scores).sum()) - own)
        sides[bool(target[y, x])].append(loss)
    means = [np.mean(side) for side in sides.values() if side]
    return float(np.mean(means)) if means else 0.0


def test_the_loss_of_pseudo_labels_is_that_of_a_loop_over_pixels() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(4, 3, 4, 5)).astype(np.float32)
    labels = np.array([[1, 0, 1], [0, 1, 0], [1, 1, 1], [0, 0, 0]], np.float32)
    target = np.zeros((4, 4, 5), np.uint8)
    target[0] = rng.choice([0, 1, 3, 255], (4, 5))
    target[1] = 2
    target[2] = 255
    found = pseudo_label_loss(*(torch.from_numpy(a) for a in (logits, target, labels)))
    expected = [naive_loss(*image) for image in zip(logits, target, labels, strict=True)]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float32))
    assert found[1] > 0
    assert found[2] == 0


def test_labels_of_full_size_are_sampled_at_the_centres_of_cells() -> None:
    logits = torch.tensor([[[[5.0, -5.0]]]])
    target = torch.zeros(1, 8, 16, dtype=torch.uint8)
    target[:, :, :8] = 1
    right = pseudo_label_loss(logits, target, torch.ones(1, 1))
    assert right < 0.01
    assert pseudo_label_loss(logits, target.flip(-1), torch.ones(1, 1)) > 4


def test_a_crop_has_the_labels_of_its_own_pixels_and_the_filler_has_none(
    make_task: Make, rows: Rows
) -> None:
    losses = LossConfig(pseudo_labels=1.0)
    plain = make_task("activation", fill="image").sampler
    sampler = make_task("activation", losses=losses, fill="image").sampler
    filler = {name: value for name, value in rows[0].items() if name != "pseudo_label"}
    sample = sampler.sample(rows[1], draw(4), filler)
    expected = plain.sample(rows[1], draw(4), filler)
    assert all(np.array_equal(value, sample[name]) for name, value in expected.items())
    assert set(np.unique(sample["target"])) <= {0, 2, 3, 255}
    # Patches are bright in the channel of their class.
    for class_index in {2, 3} & set(np.unique(sample["target"]).tolist()):
        inside = sample["image"][sample["target"] == class_index]
        assert inside[:, class_index - 1].mean() > inside.mean() + 40


def test_pseudo_labels_of_cam_come_before_the_training_that_learns_them() -> None:
    config = replace(smoke(), baselines=())
    losses = replace(config.activation.losses, pseudo_labels=1.0)
    learns = replace(
        config,
        activation=replace(config.activation, losses=losses, initialise_from_cam=False),
        refinement=replace(config.refinement, steps=("walk", "crf")),
        baselines=("cam",),
    )
    names = [name for name, _ in steps(learns)]
    assert names[: names.index("train_activation")] == [
        "prepare",
        "train_classifier",
        "train_encoder",
        *(f"cam_{name}" for name in names[names.index("train_activation") + 1 : -2]),
    ]
    assert names[-2:] == ["train_segmentation", "evaluate"]
    alone = replace(learns, refinement=config.refinement, baselines=())
    assert [t.stage for t in trainings_of(alone)] == [
        "train_classifier",
        "train_encoder",
        "train_activation",
    ]
    assert not any(name.startswith("cam_") for name, _ in steps(config))
