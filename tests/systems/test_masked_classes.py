"""SLAMs masks some of the present classes of a crop, drawn anew in each step."""

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from numpy.random import default_rng as draw

from slams_ray.config import ActivationConfig, LossConfig
from slams_ray.errors import ConfigError
from slams_ray.systems.slams.maskable_crops import MaskableCrops
from slams_ray.training.samples import CHOSEN_LABELS
from tests.tiny_tasks import CLASS_NAMES, TRAINING, make_row

Make = Callable[..., Any]
Rows = list[dict[str, Any]]
PARTS = ("foreground", "background")


def test_the_losses_of_one_drawn_class_are_on_average_those_of_all(
    make_task: Make, make_batch: Make, rows: Rows
) -> None:
    task = make_task("activation", losses=LossConfig(foreground=1.0, background=2.0))
    module = task.build().eval()
    batch = make_batch(task, rows)
    _, of_all = module(batch, draw(0), False)
    choices = [row.nonzero().flatten().tolist() or [None] for row in batch["labels"]]
    found: dict[str, list[torch.Tensor]] = {part: [] for part in PARTS}
    for chosen in product(*choices):
        batch[CHOSEN_LABELS] = torch.zeros_like(batch["labels"])
        for image, class_index in enumerate(chosen):
            if class_index is not None:
                batch[CHOSEN_LABELS][image, class_index] = 1
        _, metrics = module(batch, draw(0), False)
        for part in PARTS:
            found[part].append(metrics[f"loss_{part}"])
    assert len(found["foreground"]) == 1 * 2 * 1 * 3
    for part, values in found.items():
        assert len(set(map(float, values))) > 1
        torch.testing.assert_close(torch.stack(values).mean(), of_all[f"loss_{part}"])


@pytest.mark.parametrize(("masked_classes", "num_pairs"), [(1, 3), (2, 5), (3, 6), (None, 6)])
def test_the_encoder_gets_at_most_that_many_masked_crops_of_an_image(
    masked_classes: int | None, num_pairs: int, make_task: Make, make_batch: Make, rows: Rows
) -> None:
    losses = LossConfig(foreground=0.0)
    task = make_task("activation", losses=losses, masked_classes=masked_classes)
    module = task.build().train()
    seen: list[int] = []
    module.encoder.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    module(make_batch(task, rows), draw(0), False)
    assert seen == [num_pairs]


def test_every_present_class_is_drawn_and_nothing_else_of_the_crop_changes() -> None:
    row = make_row(0, (1, 3))
    names = {"with_filler": False, "with_thresholds": True}
    sampler, of_all = (
        MaskableCrops(TRAINING, len(CLASS_NAMES) - 1, **names, num_chosen=num) for num in (1, None)
    )
    drawn = set()
    for seed in range(20):
        sample, other = sampler.sample(row, draw(seed)), of_all.sample(row, draw(seed))
        drawn.add(tuple(sample.pop(CHOSEN_LABELS).tolist()))
        assert sample.keys() == other.keys()
        assert all(np.array_equal(value, other[name]) for name, value in sample.items())
    assert drawn == {(1, 0, 0), (0, 0, 1)}


@pytest.mark.parametrize("scale", [0.5, 0.75])
def test_the_transformed_crop_has_the_scale_of_the_settings(
    scale: float, make_task: Make, make_batch: Make, rows: Rows
) -> None:
    task = make_task("activation", equivariance_scales=(scale,))
    module = task.build().train()
    sides: list[int] = []
    module.network.register_forward_pre_hook(lambda _, inputs: sides.append(inputs[0].shape[-1]))
    module(make_batch(task, rows), draw(0), False)
    assert sides == [TRAINING.crop_px, round(scale * TRAINING.crop_px)]


@pytest.mark.parametrize(
    ("name", "value"),
    [("masked_classes", 0), ("equivariance_scales", ()), ("equivariance_scales", (0.5, 1.5))],
)
def test_impossible_settings_are_refused_with_their_name(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"activation\.{name}"):
        ActivationConfig(**{name: value})
