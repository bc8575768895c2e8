"""MCTformer: a vision transformer with a token for each class."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.random import default_rng as draw

from slams_ray.errors import ConfigError
from slams_ray.networks.token_network import TokenNetwork
from slams_ray.networks.vision_transformer import (
    VitSizes,
    attended,
    build_vit,
    read_vit,
    vit_sizes,
    whole_patches,
)
from slams_ray.recipes import RECIPES
from slams_ray.systems.classification import classifier_loss
from slams_ray.systems.crops import DeepCrops
from slams_ray.systems.mctformer import MctformerTask
from tests.tiny_tasks import CLASS_NAMES, TRAINING, TinyAttention, make_row, read_tiny_vit

Make = Callable[..., Any]
Rows = list[dict[str, Any]]


def test_the_loss_is_that_of_tokens_and_of_patches_over_the_image(
    make_system_task: Make, make_batch: Make, rows: Rows
) -> None:
    task = make_system_task("mctformer")
    module = task.build().eval()
    batch = make_batch(task, rows)
    side = batch["image"].shape[1]
    batch["box"] = torch.tensor([[0, 0, side, side]] * 4)
    loss, metrics = module(batch, draw(0), True)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    images = ((batch["image"] / 255 - mean) / std).permute(0, 3, 1, 2)
    tokens, size = module.network.backbone.tokens(images)
    assert size == (side // 8, side // 8)
    labels = batch["labels"].float()
    of_tokens = classifier_loss(tokens[:, :3].mean(dim=2), labels).mean()
    grid = tokens[:, 3:].transpose(1, 2).reshape(4, 16, *size)
    of_patches = classifier_loss(module.network.head(grid).mean(dim=(2, 3)), labels).mean()
    torch.testing.assert_close(loss, of_tokens + of_patches, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(metrics["loss_tokens"], of_tokens.detach(), atol=1e-5, rtol=1e-4)


def test_every_class_starts_from_the_class_token_and_its_position(make_system_task: Make) -> None:
    backbone = make_system_task("mctformer").build().network.backbone
    _, state = read_tiny_vit("given")
    start = (state["cls_token"] + state["pos_embed"][:, :1])[0, 0]
    for token in backbone.class_tokens:
        torch.testing.assert_close(token.detach(), start)
    torch.testing.assert_close(backbone.body.pos_embed.detach(), state["pos_embed"][:, 1:])
    weight = state["blocks.0.norm1.weight"]
    torch.testing.assert_close(backbone.body.blocks[0].norm1.weight, weight)
    assert not any(name.startswith("body.norm") for name in backbone.state_dict())


def test_the_loss_of_the_tokens_reaches_them(make_system_task: Make) -> None:
    network = make_system_task("mctformer").build().network
    scores, _ = network.logits(torch.randn(2, 3, 24, 24))
    classifier_loss(scores, torch.eye(3)[:2]).mean().backward()
    # After a norm the mean over channels hardly depends on the token: 1e-10.
    assert network.backbone.class_tokens.grad.abs().max() > 1e-3


def test_both_forward_passes_give_the_same_tokens(make_system_task: Make) -> None:
    backbone = make_system_task("mctformer").build().network.backbone
    images = torch.randn(2, 3, 24, 40)
    tokens, size = backbone.tokens(images)
    others, attention, other_size = backbone.with_attention(images)
    assert size == other_size == (3, 5)
    torch.testing.assert_close(tokens, others, atol=1e-5, rtol=1e-4)
    assert attention.shape == (4, 2, 18, 18)
    torch.testing.assert_close(attention.sum(dim=3), torch.ones(4, 2, 18))


def test_attention_gives_what_the_module_gives() -> None:
    torch.manual_seed(0)
    module, tokens = TinyAttention(16), torch.randn(2, 5, 16)
    torch.testing.assert_close(attended(module, tokens)[0], module(tokens), atol=1e-5, rtol=1e-4)


def test_the_sampler_drops_branches_of_later_blocks_and_keeps_the_mean() -> None:
    crops = DeepCrops(training=TRAINING, num_classes=3, depth=3, drop_path=0.5)
    row = make_row(0, (1,))
    kept = np.stack([crops.sample(row, np.random.default_rng(i))["kept"] for i in range(400)])
    assert kept.shape == (400, 3, 2)
    assert (kept[:, 0] == 1).all()
    assert set(np.unique(kept[:, 2])) == {0.0, 2.0}
    assert abs((kept[:, 2] == 0).mean() - 0.5) < 0.06
    assert abs(kept[:, 1].mean() - 1) < 0.06


def test_a_dropped_branch_has_no_effect_and_no_gradient(make_system_task: Make) -> None:
    backbone = make_system_task("mctformer").build().network.backbone
    kept = torch.ones(1, 4, 2)
    kept[0, 3] = 0
    tokens, _ = backbone.tokens(torch.randn(1, 3, 16, 16), kept)
    tokens.square().sum().backward()
    assert all(p.grad is None or not p.grad.any() for p in backbone.body.blocks[3].parameters())
    assert backbone.body.blocks[2].attn.qkv.weight.grad.any()


def test_images_are_resized_down_to_whole_patches() -> None:
    assert whole_patches(torch.zeros(1, 3, 37, 16), 16).shape == (1, 3, 32, 16)
    assert whole_patches(torch.zeros(1, 3, 5, 70), 16).shape == (1, 3, 16, 64)


def test_crops_that_are_not_of_whole_patches_are_refused(make_system_task: Make) -> None:
    config = make_system_task("mctformer").config
    config = replace(config, training=replace(config.training, crop_px=44))
    with pytest.raises(ConfigError, match=r"crop_px is 44, expected a multiple .* \(8\)"):
        MctformerTask(config, CLASS_NAMES)


@pytest.mark.parametrize("recipe", ["demo", "folder"])
def test_without_weights_the_settings_are_refused(recipe: str) -> None:
    with pytest.raises(ConfigError, match=r"mctformer\.weights is None.*nothing downloads it"):
        replace(RECIPES[recipe](), system="mctformer")


@pytest.mark.parametrize("recipe", RECIPES)
def test_crops_of_every_recipe_are_of_whole_patches(recipe: str) -> None:
    training = RECIPES[recipe]().mctformer.training
    assert training.crop_px % 16 == 0
    assert (training.optimizer, training.learning_rate) == ("adamw", 6.25e-5)


def test_weights_of_another_architecture_are_refused(tmp_path: Path) -> None:
    torch.save({"model": {"layer.weight": torch.zeros(1)}}, tmp_path / "other.pt")
    with pytest.raises(ConfigError, match=r"mctformer\.weights .* for another architecture"):
        read_vit(str(tmp_path / "other.pt"))
    with pytest.raises(ConfigError, match="which is not a file"):
        read_vit(str(tmp_path / "none.pt"))


def test_a_network_of_timm_is_rebuilt_from_its_weights_and_gives_its_tokens(tmp_path: Path) -> None:
    pytest.importorskip("timm", reason="the extra vit (timm) is not installed")
    from timm.models.vision_transformer import VisionTransformer

    torch.manual_seed(0)
    arguments = {"img_size": 32, "patch_size": 8, "embed_dim": 64, "depth": 3, "num_heads": 1}
    trained = VisionTransformer(**arguments, num_classes=5).eval()
    torch.save({"model": trained.state_dict()}, tmp_path / "vit.pt")
    sizes, state = read_vit(str(tmp_path / "vit.pt"))
    assert sizes == VitSizes(width=64, depth=3, patch_px=8, image_px=32)
    assert vit_sizes(trained.state_dict(), "file") == sizes
    architecture = {"width": 64, "depth": 3, "patch_px": 8, "image_px": 32}
    network = TokenNetwork(num_classes=1, map_blocks=2, build=build_vit, **architecture).eval()
    network.backbone.load(state, "file")
    images = torch.randn(2, 3, 32, 32)
    # With one class, its token is the class token. timm's tokens have passed the last norm.
    expected = trained.forward_features(images)
    for tokens in (network.backbone.tokens(images)[0], network.backbone.with_attention(images)[0]):
        torch.testing.assert_close(trained.norm(tokens), expected, atol=1e-4, rtol=1e-3)
    assert network(torch.randn(1, 3, 44, 20)).shape == (1, 1, 5, 2)
    del state["blocks.0.norm1.weight"]
    with pytest.raises(ConfigError, match="another architecture"):
        network.backbone.load(state, "file")
