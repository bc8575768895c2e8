"""CLIMS: a frozen image-text network says what masked images show (Xie et al., CVPR 2022).

A are the masks of an image x, of length-1 embeddings s is the cosine of an image and a text,
clamped to [1e-4, 1 - 1e-4]. For each present class k with the text t_k, and background texts b:

- foreground: mean over k of -log s(x A_k, t_k);
- complement: mean over k of -log(1 - s(x (1 - A_k), t_k));
- background: sum over k and over the b with s(x A_k, b) > tau of -log(1 - s(x A_k, b));
- area: mean of A over all classes and the image.

The loss is their weighted sum, averaged over images. The published program sums the third term
over the batch and normalises the input of the image-text network with ImageNet's statistics; here
the sum is per image, and the network gets its own statistics.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from slams_ray.config import BackboneConfig, ClimsConfig, PipelineConfig
from slams_ray.networks.extras import require_extra
from slams_ray.networks.image_text import ImageTextEncoder, load_clip, read_clip
from slams_ray.networks.text_network import TextNetwork
from slams_ray.systems.after_cam import AfterCamTask, copy_weights, system_after_cam
from slams_ray.systems.maps import (
    collapse_metrics,
    crops_of,
    mean_over_image,
    resized,
)
from slams_ray.systems.prompts import class_texts
from slams_ray.systems.slams.soft_masks import soft_masks
from slams_ray.training.task import Batch, TrainingModule, pairs_of

NAME = "clims"
COSINE_EPSILON = 1e-4
Pairs = tuple[torch.Tensor, torch.Tensor]
LoadEncoder = Callable[[str, str], ImageTextEncoder]


class ClimsModule(TrainingModule):
    """Trains the maps through a frozen image-text network."""

    network: TextNetwork

    def __init__(
        self,
        network: TextNetwork,
        encoder: ImageTextEncoder,
        config: ClimsConfig,
        backbone: BackboneConfig,
    ) -> None:
        super().__init__(network, backbone)
        assert isinstance(encoder, nn.Module)
        self.encoder = encoder.eval().requires_grad_(False)
        self.config = config

    def train(self, mode: bool = True) -> "ClimsModule":
        super().train(mode)
        self.encoder.eval()
        return self

    def forward(
        self, batch: Batch, draw: np.random.Generator, observe: bool
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        images, pixels = crops_of(batch)
        labels = batch["labels"].float()
        logits = self.network(images).float()
        valid = resized(pixels, logits.shape[-2:])
        masks = soft_masks(logits, valid, self.config.mask)
        pairs = pairs_of(batch)
        inside, outside = self._similarities(images, masks, pairs)
        terms = text_losses(inside, outside, labels, pairs, self.config.background_threshold)
        terms["area"] = mean_over_image(masks, valid).mean(dim=1)
        means = {name: term.mean() for name, term in terms.items()}
        loss = torch.stack([getattr(self.config, name) * m for name, m in means.items()]).sum()
        metrics = {f"loss_{name}": value.detach() for name, value in means.items()}
        metrics |= similarity_metrics(inside.detach(), outside.detach(), pairs[1])
        return loss, metrics | collapse_metrics(masks.detach(), labels, valid)

    def _similarities(
        self, images: torch.Tensor, masks: torch.Tensor, pairs: Pairs
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns the (N, T) similarities of the N present pairs, inside and outside of a mask."""
        image_of, class_of = pairs
        table = self.network.text_table.float()
        if not len(image_of):
            return table.new_zeros((0, len(table))), table.new_zeros((0, len(table)))
        size = (self.encoder.image_px, self.encoder.image_px)
        own = resized(masks[image_of, class_of][:, None], size)
        inputs = resized(images, size)[image_of]
        embeddings = self.encoder.image_embeddings(torch.cat([inputs * own, inputs * (1 - own)]))
        # In bfloat16, 1 - COSINE_EPSILON would be 1, and its logarithm infinite.
        with torch.autocast(images.device.type, enabled=False):
            cosines = embeddings.float() @ table.T
        inside, outside = cosines.clamp(COSINE_EPSILON, 1 - COSINE_EPSILON).chunk(2)
        return inside, outside


def text_losses(
    inside: torch.Tensor,
    outside: torch.Tensor,
    labels: torch.Tensor,
    pairs: Pairs,
    threshold: float,
) -> dict[str, torch.Tensor]:
    """Returns the terms foreground, complement and background, (B,) each.

    Args:
        inside, outside: (N, T) similarities in (0, 1) of the image inside and outside of the mask
            of each present pair. The first C texts are those of the classes, the others are
            backgrounds.
        labels: (B, C) multi-hot with N ones.
        pairs: image and class of each of them, see `pairs_of`.
        threshold: similarity above which a background counts.
    """
    image_of, class_of = pairs
    pair = torch.arange(len(image_of), device=labels.device)
    beside = inside[:, labels.shape[1] :]
    share = 1 / labels.sum(dim=1).clamp(min=1)[image_of]
    of_pairs = {
        "foreground": -inside[pair, class_of].log() * share,
        "complement": -(1 - outside[pair, class_of]).log() * share,
        "background": -((1 - beside).log() * (beside > threshold)).sum(dim=1),
    }
    zero = inside.new_zeros(len(labels))
    return {name: zero.index_add(0, image_of, values) for name, values in of_pairs.items()}


def similarity_metrics(
    inside: torch.Tensor, outside: torch.Tensor, class_of: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Mean similarity of the image inside, and outside, of a mask to the class of the mask."""
    num_pairs = max(len(class_of), 1)
    return {
        "similarity_foreground": inside.gather(1, class_of[:, None]).sum() / num_pairs,
        "similarity_background": outside.gather(1, class_of[:, None]).sum() / num_pairs,
    }


class ClimsTask(AfterCamTask[ClimsConfig]):
    """Builds the network from the CAM classifier, with the table of the texts.

    Attributes:
        text_table: (T, D) embeddings of the texts; computed once, and sent to the workers.

    Raises:
        ConfigError: the weights file is missing or of another architecture, or words name no class.
    """

    def __init__(
        self,
        config: ClimsConfig,
        backbone: BackboneConfig,
        class_names: Sequence[str],
        classifier: bytes | None,
    ) -> None:
        super().__init__(config, backbone, class_names, classifier)
        self.load_encoder: LoadEncoder = load_clip
        texts = class_texts(class_names, config, NAME)
        self.text_table = self._encoder().text_embeddings(texts).cpu()
        self.architecture |= {"texts": texts, "embedding_dim": self.text_table.shape[1]}

    def _encoder(self) -> ImageTextEncoder:
        assert self.config.weights is not None
        return self.load_encoder(self.config.weights, NAME)

    def build(self) -> TrainingModule:
        network = TextNetwork(**self.architecture)
        trained = self.trained_classifier()
        copy_weights(trained.backbone, network.backbone)
        copy_weights(trained.head, network.head)
        network.text_table.copy_(self.text_table)
        return ClimsModule(network, self._encoder(), self.config, self.backbone)


def check(config: PipelineConfig) -> None:
    """Raises ConfigError if open_clip or the weights are missing, or the weights do not fit."""
    require_extra("open_clip", "text", NAME)
    assert config.clims.weights is not None
    read_clip(config.clims.weights, f"{NAME}.weights")


SYSTEM = replace(system_after_cam(NAME, "CLIMS", ClimsTask), check=check)
