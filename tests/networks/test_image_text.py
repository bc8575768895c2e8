"""CLIP networks from a file: sizes by content, statistics, and open_clip where it is installed."""

from pathlib import Path
from typing import Any

import pytest
import torch

from slams_ray.data.transforms import IMAGENET_MEAN, IMAGENET_STD
from slams_ray.errors import ConfigError
from slams_ray.networks.image_text import (
    CLIP_MEAN,
    CLIP_STD,
    ClipEncoder,
    ClipSizes,
    clip_normalised,
    clip_sizes,
    load_clip,
    read_clip,
)

TINY = ClipSizes(
    embedding_dim=16,
    width=64,
    layers=3,
    patch_px=8,
    image_px=32,
    text_width=64,
    text_layers=1,
    context_length=12,
    num_tokens=49408,
)


def tiny_state() -> dict[str, torch.Tensor]:
    """The keys that tell the sizes."""
    blocks = {f"visual.transformer.resblocks.{n}.ln_1.weight": torch.ones(64) for n in range(3)}
    return blocks | {
        "visual.conv1.weight": torch.zeros(64, 3, 8, 8),
        "visual.positional_embedding": torch.zeros(17, 64),
        "visual.proj": torch.zeros(64, 16),
        "transformer.resblocks.0.ln_1.weight": torch.ones(64),
        "text_projection": torch.zeros(64, 16),
        "positional_embedding": torch.zeros(12, 64),
        "token_embedding.weight": torch.zeros(49408, 1).expand(49408, 64),
    }


def test_the_sizes_are_read_from_the_weights() -> None:
    assert clip_sizes(tiny_state(), "file") == TINY


@pytest.mark.parametrize("key", ["visual.proj", "text_projection"])
def test_weights_of_another_architecture_are_refused(key: str, tmp_path: Path) -> None:
    state = tiny_state()
    del state[key]
    torch.save({"layer.weight": torch.zeros(1)}, tmp_path / "other.pt")
    with pytest.raises(ConfigError, match=rf"clims\.weights x is for another .* no '{key}'"):
        clip_sizes(state, "clims.weights x")
    with pytest.raises(ConfigError, match="for another architecture"):
        read_clip(str(tmp_path / "other.pt"), "clims.weights")


def test_what_is_not_a_state_dict_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.pt").write_text("nothing")
    with pytest.raises(ConfigError, match=r"clims\.weights .* cannot be read as a state dict"):
        read_clip(str(tmp_path / "text.pt"), "clims.weights")


def test_images_get_the_statistics_that_the_network_expects() -> None:
    pixels = torch.rand(2, 3, 4, 5)

    def by(mean: Any, std: Any) -> torch.Tensor:
        shape = (1, 3, 1, 1)
        return (pixels - torch.tensor(mean).view(shape)) / torch.tensor(std).view(shape)

    found = clip_normalised(by(IMAGENET_MEAN, IMAGENET_STD))
    torch.testing.assert_close(found, by(CLIP_MEAN, CLIP_STD), atol=1e-5, rtol=1e-5)


@pytest.fixture
def weights(tmp_path: Path) -> str:
    """A file with random weights of a tiny network of open_clip."""
    pytest.importorskip("open_clip", reason="the extra text (open_clip) is not installed")
    torch.manual_seed(0)
    path = str(tmp_path / "clip.pt")
    torch.save(ClipEncoder(TINY, "clims").clip.state_dict(), path)
    return path


def test_a_network_of_open_clip_is_rebuilt_from_its_weights_alone(weights: str) -> None:
    import open_clip

    encoder = load_clip(weights, "clims")
    state = torch.load(weights, weights_only=True)
    assert clip_sizes(state, "file") == TINY
    images = torch.randn(2, 3, 32, 32, requires_grad=True)
    found = encoder.image_embeddings(images)
    expected = encoder.clip.encode_image(clip_normalised(images), normalize=True)
    torch.testing.assert_close(found, expected)
    found.sum().backward()
    assert images.grad.abs().sum() > 0
    assert not any(p.requires_grad for p in encoder.parameters())
    texts = ["a photo of cat", "a photo of dog"]
    table = encoder.text_embeddings(texts)
    tokens = open_clip.SimpleTokenizer(context_length=12)(texts)
    torch.testing.assert_close(table, encoder.clip.encode_text(tokens, normalize=True))
    torch.testing.assert_close(table.norm(dim=1), torch.ones(2))


def test_a_network_with_a_missing_layer_is_refused(weights: str) -> None:
    state = torch.load(weights, weights_only=True)
    del state["visual.ln_post.weight"]
    torch.save(state, weights)
    with pytest.raises(ConfigError, match=r"clims\.weights .* another architecture"):
        load_clip(weights, "clims")
