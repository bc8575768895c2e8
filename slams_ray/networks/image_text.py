"""CLIP networks from a weights file of the user, built by open_clip (extra `text`).

A network is an image tower and a text tower with one embedding (Radford et al., ICML 2021). Only
vision transformers with QuickGELU, as OpenAI trained them, are supported.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn
from torch.nn import functional as F

from slams_ray.data.transforms import IMAGENET_MEAN, IMAGENET_STD
from slams_ray.errors import ConfigError
from slams_ray.networks.extras import require_extra
from slams_ray.networks.weights import load_exactly, read_state_dict

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
"""Statistics of the images that OpenAI's CLIP was trained on, in [0, 1]."""
HEAD_WIDTH = 64
EXTRA_KEYS = ("input_resolution", "context_length", "vocab_size")
"""Entries of OpenAI's files that are not weights."""


class ImageTextEncoder(Protocol):
    """What a system needs of a network for images and texts.

    Attributes:
        image_px: side of the images that it takes.
    """

    image_px: int

    def image_embeddings(self, images: torch.Tensor) -> torch.Tensor:
        """Returns (B, D) embeddings of length 1 of (B, 3, image_px, image_px) images.

        The images are normalised with ImageNet statistics, as for all other networks.
        """

    def text_embeddings(self, texts: Sequence[str]) -> torch.Tensor:
        """Returns (N, D) embeddings of length 1."""


@dataclass(frozen=True, kw_only=True)
class ClipSizes:
    """Sizes of a CLIP network.

    Attributes:
        embedding_dim: length D of an embedding.
        width, layers, patch_px, image_px: of the image tower.
        text_width, text_layers, context_length, num_tokens: of the text tower.
    """

    embedding_dim: int
    width: int
    layers: int
    patch_px: int
    image_px: int
    text_width: int
    text_layers: int
    context_length: int
    num_tokens: int


def clip_sizes(state: Mapping[str, torch.Tensor], source: str) -> ClipSizes:
    """Returns the sizes of the network whose state dict this is.

    Args:
        source: setting and path of the file, for messages.

    Raises:
        ConfigError: it is not a CLIP network with a vision transformer.
    """
    try:
        patches, positions = state["visual.conv1.weight"], state["visual.positional_embedding"]
        projection, text_positions = state["text_projection"], state["positional_embedding"]
        layers, text_layers = (
            len({k for k in state if k.startswith(start) and k.endswith(".ln_1.weight")})
            for start in ("visual.transformer.", "transformer.")
        )
        return ClipSizes(
            embedding_dim=state["visual.proj"].shape[1],
            width=patches.shape[0],
            layers=layers,
            patch_px=patches.shape[-1],
            image_px=patches.shape[-1] * math.isqrt(positions.shape[0] - 1),
            text_width=projection.shape[0],
            text_layers=text_layers,
            context_length=text_positions.shape[0],
            num_tokens=state["token_embedding.weight"].shape[0],
        )
    except KeyError as error:
        raise ConfigError(
            f"{source} is for another architecture: it has no {error}, which the state dict of a "
            "CLIP network with a vision transformer (such as ViT-B/16) has"
        ) from error


def read_clip(path: str, setting: str) -> tuple[ClipSizes, dict[str, torch.Tensor]]:
    """Reads the weights of a CLIP network, in float32.

    Args:
        setting: name of the setting that has the path, for messages.

    Raises:
        ConfigError: the file is missing, or is for another architecture.
    """
    state = read_state_dict(path, setting)
    sizes = clip_sizes(state, f"{setting} {path}")
    return sizes, {k: v.float() for k, v in state.items() if k not in EXTRA_KEYS}


class ClipEncoder(nn.Module):
    """CLIP network with random weights.

    Raises:
        ConfigError: open_clip is not installed.
    """

    def __init__(self, sizes: ClipSizes, system: str) -> None:
        super().__init__()
        require_extra("open_clip", "text", system)
        import open_clip

        self.image_px = sizes.image_px
        self.clip = open_clip.CLIP(
            embed_dim=sizes.embedding_dim,
            vision_cfg=open_clip.CLIPVisionCfg(
                layers=sizes.layers,
                width=sizes.width,
                head_width=HEAD_WIDTH,
                patch_size=sizes.patch_px,
                image_size=sizes.image_px,
            ),
            text_cfg=open_clip.CLIPTextCfg(
                context_length=sizes.context_length,
                vocab_size=sizes.num_tokens,
                width=sizes.text_width,
                heads=sizes.text_width // HEAD_WIDTH,
                layers=sizes.text_layers,
            ),
            quick_gelu=True,
        )
        self.tokenize = open_clip.SimpleTokenizer(context_length=sizes.context_length)

    def image_embeddings(self, images: torch.Tensor) -> torch.Tensor:
        """See `ImageTextEncoder`."""
        return F.normalize(self.clip.encode_image(clip_normalised(images)).float(), dim=-1)

    @torch.no_grad()
    def text_embeddings(self, texts: Sequence[str]) -> torch.Tensor:
        """See `ImageTextEncoder`."""
        tokens = self.tokenize(list(texts))
        return F.normalize(self.clip.encode_text(tokens).float(), dim=-1)


def load_clip(path: str, system: str) -> ClipEncoder:
    """Returns the CLIP network of the weights file of a system, frozen.

    Raises:
        ConfigError: open_clip is not installed, or the file is missing or of another architecture.
    """
    sizes, state = read_clip(path, f"{system}.weights")
    encoder = ClipEncoder(sizes, system)
    load_exactly(encoder.clip, state, f"{system}.weights {path}")
    return encoder.eval().requires_grad_(False)


def clip_normalised(images: torch.Tensor) -> torch.Tensor:
    """(B, 3, H, W) images with CLIP's statistics, of those with ImageNet's."""
    mean, std, clip_mean, clip_std = (
        images.new_tensor(values)[:, None, None]
        for values in (IMAGENET_MEAN, IMAGENET_STD, CLIP_MEAN, CLIP_STD)
    )
    return images * (std / clip_std) + (mean - clip_mean) / clip_std
