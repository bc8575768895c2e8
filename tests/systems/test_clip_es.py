"""CLIP-ES: maps of an image-text network that is not trained."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from slams_ray.config import ClipEsConfig
from slams_ray.errors import ConfigError
from slams_ray.networks.attention_maps import balanced_affinity, grad_cam, refined_in_boxes
from slams_ray.networks.checkpoint import MAP_NETWORKS, load_network
from slams_ray.networks.clip_map_network import ClipMapNetwork
from slams_ray.networks.image_text import ClipEncoder, ClipSizes, clip_normalised
from slams_ray.recipes import RECIPES
from slams_ray.systems.clip_es import check, make_checkpoint
from slams_ray.systems.registry import trainings_of
from tests.tiny_tasks import CLASS_NAMES

SIZES = ClipSizes(
    embedding_dim=16,
    width=128,
    layers=3,
    patch_px=8,
    image_px=32,
    text_width=64,
    text_layers=1,
    context_length=12,
    num_tokens=49408,
)


@pytest.mark.parametrize("recipe", ["demo", "folder"])
def test_without_weights_the_settings_are_refused(recipe: str) -> None:
    with pytest.raises(ConfigError, match=r"clip_es\.weights is None.*nothing downloads it"):
        replace(RECIPES[recipe](), system="clip_es")


def test_it_trains_no_network_and_writes_one() -> None:
    config = RECIPES["smoke"]()
    own = replace(config.clip_es, weights="given")
    config = replace(config, clip_es=own, system="clip_es", baselines=())
    assert [made.stage for made in trainings_of(config)] == ["make_clip_es"]


def test_missing_weights_are_refused_before_the_first_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = RECIPES["smoke"]()
    own = replace(config.clip_es, weights=str(tmp_path / "none.pt"))
    monkeypatch.setattr("slams_ray.systems.clip_es.require_extra", lambda *names: None)
    with pytest.raises(ConfigError, match=r"clip_es\.weights names .*none\.pt"):
        check(replace(config, clip_es=own))


@pytest.fixture
def checkpoint(tmp_path: Path) -> bytes:
    """The checkpoint of a tiny network of open_clip with random weights."""
    pytest.importorskip("open_clip", reason="the extra text (open_clip) is not installed")
    torch.manual_seed(0)
    path = str(tmp_path / "clip.pt")
    torch.save(ClipEncoder(SIZES, "clip_es").clip.state_dict(), path)
    config = ClipEsConfig(
        weights=path, words=("green=leaf",), background_words=("sky", "sea"), attention_blocks=2
    )
    return make_checkpoint(config, CLASS_NAMES)


def network_of(checkpoint: bytes) -> ClipMapNetwork:
    network = load_network(checkpoint, "memory", MAP_NETWORKS, CLASS_NAMES)
    assert isinstance(network, ClipMapNetwork)
    return network


def test_the_checkpoint_holds_the_texts_in_the_order_of_the_classes(checkpoint: bytes) -> None:
    network = network_of(checkpoint)
    words = ("red", "leaf", "blue", "sky", "sea")
    assert network.texts == tuple(f"a clean origami {text}." for text in words)
    torch.testing.assert_close(network.text_table.norm(dim=1), torch.ones(5))
    torch.testing.assert_close(float(network.logit_scale), 1 / 0.07, rtol=1e-4, atol=0)


def test_the_maps_are_those_of_the_formulas_on_the_librarys_own_forward(checkpoint: bytes) -> None:
    network = network_of(checkpoint)
    images = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    labels = torch.tensor([[1.0, 0, 1]])
    visual = network.visual
    kept: dict[str, torch.Tensor] = {}

    def keep(module: torch.nn.Module, inputs: object, output: torch.Tensor) -> None:
        output.retain_grad()
        kept["normed"] = output

    hook = visual.transformer.resblocks[-1].ln_1.register_forward_hook(keep)
    tokens = visual.transformer(visual._embeds(clip_normalised(images)))
    hook.remove()
    pooled = visual.ln_post(tokens)[:, 1:].mean(dim=1) @ visual.proj
    cosines = (pooled / pooled.norm()) @ network.text_table.T
    scores = (network.logit_scale * cosines[:, [0, 2, 3, 4]]).softmax(dim=1)
    attentions = []
    entering = visual._embeds(clip_normalised(images))
    for block in visual.transformer.resblocks:
        normed = block.ln_1(entering)
        attentions.append(block.attn(normed, normed, normed, need_weights=True)[1])
        entering = block(entering)
    affinity = balanced_affinity(((attentions[1] + attentions[2]) / 2)[:, 1:, 1:].detach())
    found = network(images, labels)
    assert found.shape == (1, 3, 4, 4)
    assert not found[0, 1].any()
    for place, k in ((0, 0), (1, 2)):
        kept["normed"].grad = None
        scores[0, place].backward(retain_graph=True)
        map_ = grad_cam(kept["normed"][:, 1:].detach(), kept["normed"].grad[:, 1:])
        expected = refined_in_boxes(map_[0].view(4, 4), affinity[0], 0.4)
        torch.testing.assert_close(found[0, k], expected, atol=1e-4, rtol=1e-3)


def test_images_of_a_batch_do_not_change_each_other_and_may_have_any_size(
    checkpoint: bytes,
) -> None:
    network = network_of(checkpoint)
    images, labels = torch.randn(2, 3, 20, 44), torch.tensor([[1.0, 1, 0], [0, 1, 0]])
    together = network(images, labels)
    assert together.shape == (2, 3, 3, 6)
    for b in range(2):
        alone = network(images[b : b + 1], labels[b : b + 1])[0]
        torch.testing.assert_close(together[b], alone, atol=1e-4, rtol=1e-3)
    assert not network(images, torch.zeros(2, 3)).any()


def test_inference_mode_does_not_keep_it_from_its_gradients(checkpoint: bytes) -> None:
    from slams_ray.inference.activation_predictor import ActivationPredictor

    predictor = ActivationPredictor(
        {"clip_es": network_of(checkpoint)},
        scales=(0.5, 1.0),
        flip=True,
        device=torch.device("cpu"),
    )
    image = np.random.default_rng(0).integers(0, 256, (36, 48, 3)).astype(np.uint8)
    maps = predictor.activate_batch([image, image], [[1, 3], []])
    assert maps[0]["clip_es"].shape == (2, 9, 12)
    assert maps[0]["clip_es"].max() > 200
    assert maps[1]["clip_es"].shape == (0, 9, 12)
