"""Network that makes maps of a CLIP network without training (CLIP-ES; docs/method.md, CLIP-ES)."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from slams_ray.networks.attention_maps import (
    balanced_affinity,
    grad_cam,
    present_softmax,
    refined_in_boxes,
    resized_positions,
)
from slams_ray.networks.extras import require_extra
from slams_ray.networks.image_text import HEAD_WIDTH, clip_normalised


class ClipMapNetwork(nn.Module):
    """Softmax Grad-CAM of a vision transformer, refined by its attention (CLIP-ES).

    Lin et al., CVPR 2023. Grad-CAM is taken at the norm before the last block.

    Args:
        texts: one text for each class in their order, then those of background.
        num_classes: number C of classes.
        embedding_dim, width, layers, patch_px, image_px: see `ClipSizes`.
        box_share: share of the maximum of a map above which its boxes are.
        attention_blocks: number of last blocks whose attention refines the maps.

    Raises:
        ConfigError: open_clip is not installed.
    """

    needs_labels = True
    native_size_only = True
    mirrored = False
    text_table: torch.Tensor
    logit_scale: torch.Tensor

    def __init__(
        self,
        *,
        texts: Sequence[str],
        num_classes: int,
        box_share: float,
        attention_blocks: int,
        **tower: int,
    ) -> None:
        super().__init__()
        self.texts = tuple(texts)
        self.num_classes = num_classes
        self.box_share, self.attention_blocks = box_share, attention_blocks
        self.patch_px = tower["patch_px"]
        self.visual = image_tower(**tower)
        self.register_buffer("text_table", torch.zeros(len(texts), tower["embedding_dim"]))
        self.register_buffer("logit_scale", torch.tensor(100.0))

    def forward(self, images: torch.Tensor, labels: torch.Tensor | None = None) -> torch.Tensor:
        """Returns (B, C, h, w) maps, non-negative, of (B, 3, H, W) normalised images.

        h and w are the sides divided by the side of a patch, rounded up. Maps of absent classes
        are 0. It computes gradients of its own, also in inference mode.

        Args:
            labels: (B, C) multi-hot; only these classes compete. None means all.
        """
        # Tensors of inference mode take no part in gradients; their copies do.
        with torch.inference_mode(False), torch.enable_grad():
            copied = images.detach().clone()
            if labels is None:
                labels = copied.new_ones((len(copied), self.num_classes))
            return self._maps(copied, labels.detach().clone())

    def _maps(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        size = tuple(-(-side // self.patch_px) for side in images.shape[-2:])
        with torch.no_grad():
            tokens, attentions = self._before_last_block(images, (size[0], size[1]))
        last = self.visual.transformer.resblocks[-1]
        normed = last.ln_1(tokens).detach().requires_grad_()
        tokens, attention = after_norm(last, tokens, normed)
        affinity = balanced_affinity(
            torch.stack([*attentions, attention.detach()])[-self.attention_blocks :].mean(dim=0)[
                :, 1:, 1:
            ]
        )
        scores = present_softmax(self._cosines(tokens), labels, float(self.logit_scale))
        maps = images.new_zeros((*labels.shape, *size), dtype=torch.float32)
        for k in labels.any(dim=0).nonzero()[:, 0].tolist():
            # An image has no part in the gradient of another one.
            (gradient,) = torch.autograd.grad(scores[:, k].sum(), normed, retain_graph=True)
            found = grad_cam(normed.detach()[:, 1:].float(), gradient[:, 1:].float())
            for b in labels[:, k].nonzero()[:, 0].tolist():
                maps[b, k] = refined_in_boxes(found[b].view(size), affinity[b], self.box_share)
        return maps

    def _before_last_block(
        self, images: torch.Tensor, size: tuple[int, int]
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Returns (B, 1 + N, width) tokens, and the attention of each block, mean over heads."""
        visual = self.visual
        pixels = tuple(side * self.patch_px for side in size)
        resized = F.interpolate(images, size=pixels, mode="bilinear", align_corners=False)
        patches = visual.conv1(clip_normalised(resized)).flatten(2).transpose(1, 2)
        position, grid = visual.positional_embedding[:1], visual.positional_embedding[1:]
        positions = torch.cat([position, resized_positions(grid, size, "bilinear")])
        first = visual.class_embedding.expand(len(images), 1, -1)
        tokens = visual.ln_pre(torch.cat([first, patches], dim=1) + positions)
        attentions = []
        for block in visual.transformer.resblocks[:-1]:
            tokens, attention = after_norm(block, tokens, block.ln_1(tokens))
            attentions.append(attention)
        return tokens, attentions

    def _cosines(self, tokens: torch.Tensor) -> torch.Tensor:
        """(B, T) cosines of the mean of the patches, in place of the class token, and the texts."""
        pooled = self.visual.ln_post(tokens)[:, 1:].mean(dim=1) @ self.visual.proj
        return F.normalize(pooled.float(), dim=-1) @ self.text_table.float().T


def image_tower(
    *, embedding_dim: int, width: int, layers: int, patch_px: int, image_px: int
) -> Any:
    """Returns the image tower of a CLIP network with random weights; see `ClipSizes`.

    Raises:
        ConfigError: open_clip is not installed.
    """
    require_extra("open_clip", "text", "clip_es")
    from open_clip.transformer import QuickGELU, VisionTransformer

    return VisionTransformer(
        image_size=image_px,
        patch_size=patch_px,
        width=width,
        layers=layers,
        heads=width // HEAD_WIDTH,
        mlp_ratio=4.0,
        output_dim=embedding_dim,
        act_layer=QuickGELU,
    )


def after_norm(
    block: Any, tokens: torch.Tensor, normed: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Runs a block from its first norm on.

    Args:
        block: residual attention block of open_clip.
        tokens: (B, T, D) what enters the block.
        normed: (B, T, D) the tokens after the first norm.

    Returns:
        (B, T, D) tokens and (B, T, T) attention, mean over heads.
    """
    mixed, attention = block.attn(normed, normed, normed, need_weights=True)
    tokens = tokens + block.ls_1(mixed)
    return tokens + block.ls_2(block.mlp(block.ln_2(tokens))), attention
