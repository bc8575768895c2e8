"""Network whose maps are the attention of class tokens (MCTformer; docs/method.md, MCTformer)."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from slams_ray.networks.attention_maps import token_maps
from slams_ray.networks.vision_transformer import (
    TokenBackbone,
    VitSizes,
    build_vit,
    whole_patches,
)


class TokenNetwork(nn.Module):
    """Vision transformer with class tokens, and a convolution to C maps of patches.

    Xu et al., CVPR 2022, version V2.

    Args:
        num_classes: number C of classes.
        map_blocks: number of last blocks whose attention of class tokens makes the maps.
        build: makes the body; None builds timm's.
        sizes: arguments of `VitSizes`.
    """

    native_size_only = True

    def __init__(
        self,
        *,
        num_classes: int,
        map_blocks: int,
        build: Callable[[VitSizes], Any] | None = None,
        **sizes: int,
    ) -> None:
        super().__init__()
        self.num_classes, self.map_blocks = num_classes, map_blocks
        self.backbone = TokenBackbone(VitSizes(**sizes), num_classes, build or build_vit)
        self.head = nn.Conv2d(self.backbone.num_features, num_classes, 3, padding=1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Returns (B, C, h, w) maps in [0, 1] of (B, 3, H, W) normalised images.

        h and w are the sides divided by the side of a patch, rounded down, and at least 1.
        """
        images = whole_patches(images, self.backbone.sizes.patch_px)
        tokens, attention, size = self.backbone.with_attention(images)
        _, logits = self._logits(tokens, size)
        return token_maps(attention, logits, self.map_blocks)

    def logits(
        self, images: torch.Tensor, kept: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns the (B, C) scores of the class tokens, and the (B, C, h, w) logits of patches.

        Args:
            images: (B, 3, H, W) normalised, of whole patches.
            kept: see `TokenBackbone.tokens`.
        """
        return self._logits(*self.backbone.tokens(images, kept))

    def _logits(
        self, tokens: torch.Tensor, size: tuple[int, int]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        classes, patches = tokens[:, : self.num_classes], tokens[:, self.num_classes :]
        grid = patches.transpose(1, 2).reshape(len(patches), self.head.in_channels, *size)
        return classes.mean(dim=2), self.head(grid)
