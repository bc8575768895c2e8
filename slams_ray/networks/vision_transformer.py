"""Vision transformer with one token for each class, built by timm (extra `vit`)."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from slams_ray.errors import ConfigError
from slams_ray.networks.attention_maps import resized_positions
from slams_ray.networks.backbone import Backbone
from slams_ray.networks.extras import require_extra
from slams_ray.networks.image_text import HEAD_WIDTH
from slams_ray.networks.weights import load_exactly, read_state_dict

SYSTEM = "mctformer"


@dataclass(frozen=True, kw_only=True)
class VitSizes:
    """Sizes of a vision transformer.

    Attributes:
        width: channels of a token.
        depth: number of blocks.
        patch_px, image_px: sides of a patch, and of the images that it was trained on.
    """

    width: int
    depth: int
    patch_px: int
    image_px: int


def vit_sizes(state: Mapping[str, torch.Tensor], source: str) -> VitSizes:
    """Returns the sizes of the vision transformer whose state dict (timm's keys) this is.

    Args:
        source: setting and path of the file, for messages.

    Raises:
        ConfigError: it is of another architecture.
    """
    try:
        patches, positions = state["patch_embed.proj.weight"], state["pos_embed"]
        num_patches = positions.shape[1] - state["cls_token"].shape[1]
    except KeyError as error:
        raise ConfigError(
            f"{source} is for another architecture: it has no {error}, which the state dict of a "
            "vision transformer (such as DeiT-S/16) has"
        ) from error
    return VitSizes(
        width=patches.shape[0],
        depth=len(
            {key for key in state if key.startswith("blocks.") and key.endswith("norm1.bias")}
        ),
        patch_px=patches.shape[-1],
        image_px=patches.shape[-1] * math.isqrt(num_patches),
    )


def read_vit(path: str) -> tuple[VitSizes, dict[str, torch.Tensor]]:
    """Reads the weights of a vision transformer, without its classifier.

    Raises:
        ConfigError: the file is missing, or is of another architecture.
    """
    source = f"{SYSTEM}.weights"
    state = read_state_dict(path, source)
    sizes = vit_sizes(state, f"{source} {path}")
    return sizes, {key: value for key, value in state.items() if not key.startswith("head")}


def build_vit(sizes: VitSizes) -> Any:
    """Returns a vision transformer of timm with random weights and without a class token.

    Raises:
        ConfigError: timm is not installed.
    """
    require_extra("timm", "vit", SYSTEM)
    from timm.models.vision_transformer import VisionTransformer

    return VisionTransformer(
        img_size=sizes.image_px,
        patch_size=sizes.patch_px,
        embed_dim=sizes.width,
        depth=sizes.depth,
        num_heads=sizes.width // HEAD_WIDTH,
        num_classes=0,
        class_token=False,
        global_pool="",
        dynamic_img_size=True,
    )


class TokenBackbone(Backbone):
    """Vision transformer with a token for each of C classes, before the tokens of the patches.

    The tokens do not pass the last norm: its output has the same mean for every token, up to the
    spread of its weights, and this mean is the score of a class.

    Args:
        build: makes a body with random weights; its modules have the names of timm's.
    """

    def __init__(self, sizes: VitSizes, num_classes: int, build: Callable[[VitSizes], Any]) -> None:
        super().__init__(build(sizes), sizes.width, ())
        self.body.norm = nn.Identity()
        self.sizes = sizes
        self.class_tokens = nn.Parameter(torch.zeros(num_classes, sizes.width))
        nn.init.trunc_normal_(self.class_tokens, std=0.02)

    @property
    def blocks(self) -> list[nn.Module]:
        """The embedding of patches, and the blocks."""
        body: Any = self.body
        return [body.patch_embed, *body.blocks]

    def load(self, state: Mapping[str, torch.Tensor], source: str) -> None:
        """Loads weights. Each class starts from the class token and its position.

        Args:
            state: see `read_vit`.
            source: setting and path of the file, for messages.

        Raises:
            ConfigError: they are of another architecture.
        """
        body = {key: value for key, value in state.items() if not key.startswith("norm.")}
        num_tokens = body["cls_token"].shape[1]
        position = body["pos_embed"][:, :1]
        body["pos_embed"] = body["pos_embed"][:, num_tokens:]
        token = body.pop("cls_token")[:, :1]
        load_exactly(self.body, body, source)
        with torch.no_grad():
            self.class_tokens.copy_((token + position)[0].expand_as(self.class_tokens))

    def tokens(
        self, images: torch.Tensor, kept: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, tuple[int, int]]:
        """Returns (B, C + h w, width) tokens after the last block, and h and w.

        Args:
            images: (B, 3, H, W) whose sides are multiples of a patch.
            kept: (B, depth, 2) factor of both branches of each block, for stochastic depth.
        """
        body: Any = self.body
        tokens, size = self._embedded(images)
        for index, block in enumerate(body.blocks):
            mixing = block.ls1(block.attn(block.norm1(tokens)))
            tokens = tokens + _weighted(mixing, kept, index, 0)
            own = block.ls2(block.mlp(block.norm2(tokens)))
            tokens = tokens + _weighted(own, kept, index, 1)
        return tokens, size

    def with_attention(
        self, images: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, tuple[int, int]]:
        """Returns tokens and size as `tokens`, and (depth, B, T, T) attention, mean over heads."""
        body: Any = self.body
        tokens, size = self._embedded(images)
        attentions = []
        for block in body.blocks:
            mixed, attention = attended(block.attn, block.norm1(tokens))
            tokens = tokens + block.ls1(mixed)
            tokens = tokens + block.ls2(block.mlp(block.norm2(tokens)))
            attentions.append(attention)
        return tokens, torch.stack(attentions), size

    def _embedded(self, images: torch.Tensor) -> tuple[torch.Tensor, tuple[int, int]]:
        body: Any = self.body
        patch = self.sizes.patch_px
        size = images.shape[-2] // patch, images.shape[-1] // patch
        patches = body.patch_embed.proj(images).flatten(2).transpose(1, 2)
        patches = patches + resized_positions(body.pos_embed[0], size, "bicubic")
        classes = self.class_tokens.expand(len(images), -1, -1).to(patches.dtype)
        return torch.cat([classes, patches], dim=1), size


def _weighted(
    branch: torch.Tensor, kept: torch.Tensor | None, block: int, place: int
) -> torch.Tensor:
    return branch if kept is None else branch * kept[:, block, place, None, None]


def attended(attention: Any, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Runs an attention module of timm; returns its output and (B, T, T) weights, mean over heads.

    Args:
        tokens: (B, T, width).
    """
    batch, length, _ = tokens.shape
    parts = attention.qkv(tokens).reshape(batch, length, 3, attention.num_heads, -1)
    query, key, value = parts.permute(2, 0, 3, 1, 4).unbind(0)
    weights = (query @ key.transpose(2, 3) * attention.scale).softmax(dim=-1)
    mixed = (weights @ value).transpose(1, 2).reshape(batch, length, -1)
    return attention.proj(mixed), weights.mean(dim=1)


def whole_patches(images: torch.Tensor, patch_px: int) -> torch.Tensor:
    """(B, 3, H, W) images, resized down to whole patches, and to at least one."""
    size = [max(side // patch_px, 1) * patch_px for side in images.shape[-2:]]
    if list(images.shape[-2:]) == size:
        return images
    return F.interpolate(images, size=size, mode="bilinear", align_corners=False)
