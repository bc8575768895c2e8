"""CLIMS: a frozen image-text network judges the image inside and outside of a map."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from numpy.random import default_rng as draw

from slams_ray.config import ClimsConfig
from slams_ray.errors import ConfigError
from slams_ray.networks.checkpoint import load_network
from slams_ray.networks.extras import require_extra
from slams_ray.recipes import RECIPES
from slams_ray.systems.clims import check, text_losses
from slams_ray.systems.prompts import class_texts
from slams_ray.training.training import Training
from tests.tiny_tasks import CLASS_NAMES, TinyImageText

Make = Callable[..., Any]
Rows = list[dict[str, Any]]


def test_the_losses_are_those_computed_by_hand() -> None:
    # Two classes and two backgrounds; image 0 shows both classes, image 1 none, image 2 the second.
    labels = torch.tensor([[1.0, 1], [0, 0], [0, 1]])
    inside = torch.tensor([[0.5, 0.1, 0.3, 0.2], [0.1, 0.4, 0.1, 0.6], [0.2, 0.8, 0.26, 0.0]])
    outside = torch.tensor([[0.2, 0.9, 0.9, 0.9], [0.9, 0.5, 0.9, 0.9], [0.9, 0.3, 0.9, 0.9]])
    found = text_losses(inside, outside, labels, labels.nonzero(as_tuple=True), 0.26)
    expected = {
        "foreground": [-(math.log(0.5) + math.log(0.4)) / 2, 0.0, -math.log(0.8)],
        "complement": [-(math.log(0.8) + math.log(0.5)) / 2, 0.0, -math.log(0.7)],
        # 0.3 of the first pair and 0.6 of the second are above the threshold, and are added.
        "background": [-(math.log(0.7) + math.log(0.4)), 0.0, 0.0],
    }
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        torch.testing.assert_close(found[name], torch.tensor(values))


def test_the_table_has_the_classes_in_their_order_and_then_the_backgrounds(
    make_system_task: Make,
) -> None:
    task = make_system_task("clims", words=("green=leaf",), background_words=("sky", "sea"))
    texts = ["a photo of red", "a photo of leaf", "a photo of blue"]
    texts += ["a photo of sky", "a photo of sea"]
    data = Training(task=task, config=task.training, shard_rows=[], sources=[]).dump(task.build())
    network = load_network(data, "memory", "text_network", CLASS_NAMES)
    assert list(network.texts) == texts
    for row, text in zip(network.text_table, texts, strict=True):
        torch.testing.assert_close(row, TinyImageText().text_embeddings([text])[0])


def test_words_of_a_class_that_does_not_exist_are_refused() -> None:
    config = ClimsConfig(template="a {}!", words=("blue=a=b",), background_words=("sky",))
    assert class_texts(CLASS_NAMES, config, "clims") == ["a red!", "a green!", "a a=b!", "a sky!"]
    for entry in ("pink=leaf", "background=sky"):
        with pytest.raises(ConfigError, match=r"clims\.words has .* one of red, green, blue"):
            class_texts(CLASS_NAMES, replace(config, words=(entry,)), "clims")


def test_gradients_reach_the_maps_and_not_the_encoder(
    make_system_task: Make, make_batch: Make, rows: Rows
) -> None:
    # No term but those that pass the encoder.
    task = make_system_task("clims", area=0.0)
    module = task.build().train()
    loss, metrics = module(make_batch(task, rows), draw(0), True)
    loss.backward()
    assert module.network.head.weight.grad.abs().sum() > 0
    assert all(p.grad is None and not p.requires_grad for p in module.encoder.parameters())
    assert not module.encoder.training
    assert 0 < metrics["similarity_foreground"] < 1


def test_the_encoder_gets_the_image_inside_and_outside_of_each_map(
    make_system_task: Make, make_batch: Make, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = make_system_task("clims")
    module = task.build().eval()
    given: list[torch.Tensor] = []
    embed = TinyImageText.image_embeddings

    def observed(self: TinyImageText, images: torch.Tensor) -> torch.Tensor:
        given.append(images)
        return embed(self, images)

    monkeypatch.setattr(TinyImageText, "image_embeddings", observed)
    batch = make_batch(task, rows)
    module(batch, draw(0), False)
    (images,) = given
    num_pairs = int(batch["labels"].sum())
    assert images.shape == (2 * num_pairs, 3, 24, 24)
    inside, outside = images.chunk(2)
    # Both parts of an image add up to it: pairs 1 and 2 are of the same image.
    torch.testing.assert_close((inside + outside)[1], (inside + outside)[2])
    assert not torch.equal(inside[1], inside[2])


@pytest.mark.parametrize("recipe", ["demo", "folder"])
def test_without_weights_the_settings_are_refused(recipe: str) -> None:
    with pytest.raises(ConfigError, match=r"clims\.weights is None.*nothing downloads it"):
        replace(RECIPES[recipe](), system="clims")


def test_missing_weights_are_refused_before_the_first_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = RECIPES["smoke"]()
    missing = replace(config.clims, weights=str(tmp_path / "none.pt"))
    with pytest.raises(ConfigError, match=r"needs nothing_such.*pip install .*\[text\]"):
        require_extra("nothing_such", "text", "clims")
    monkeypatch.setattr("slams_ray.systems.clims.require_extra", lambda *names: None)
    with pytest.raises(ConfigError, match=r"clims\.weights names .*none\.pt, which is not a file"):
        check(replace(config, system="clims", clims=missing))
