"""Trains the activation network through the frozen encoder (docs/method.md, Activation network)."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from slams_ray.config import ActivationConfig, BackboneConfig, LossConfig
from slams_ray.data.transforms import normalise, valid_mask
from slams_ray.networks.activation_network import ActivationNetwork, classification_scores
from slams_ray.networks.batch_norm import fold_batch_norm
from slams_ray.networks.checkpoint import load_network
from slams_ray.networks.semantic_encoder import SemanticEncoder
from slams_ray.networks.weights import load_backbone_weights
from slams_ray.systems.classification import ImageLabelTask, classifier_loss
from slams_ray.systems.label_losses import pseudo_label_loss
from slams_ray.systems.maps import collapse_metrics
from slams_ray.systems.slams import losses
from slams_ray.systems.slams.maskable_crops import MaskableCrops
from slams_ray.systems.slams.soft_masks import binarise_softly, soft_masks
from slams_ray.training.samples import Sampler
from slams_ray.training.task import Batch, TrainingModule, pair_labels, pairs_of

FOREGROUND, BACKGROUND = "foreground", "background"
CATEGORY_LOSSES = {
    FOREGROUND: losses.category_foreground_loss,
    BACKGROUND: losses.category_background_loss,
}
"""Field of `LossConfig` -> loss of the image masked by the map, or by its complement."""


class ActivationModule(TrainingModule):
    """Trains with the four losses of SLAMs, an image-level loss, and one of pseudo labels."""

    network: ActivationNetwork

    def __init__(
        self,
        network: ActivationNetwork,
        encoder: SemanticEncoder,
        config: ActivationConfig,
        backbone: BackboneConfig,
    ) -> None:
        super().__init__(network, backbone)
        self.encoder = fold_batch_norm(encoder.eval()).requires_grad_(False)
        self.config = config

    def train(self, mode: bool = True) -> "ActivationModule":
        super().train(mode)
        self.encoder.eval()
        return self

    def forward(
        self, batch: Batch, draw: np.random.Generator, observe: bool
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        weights = self._weights_of_step()
        images = normalise(batch["image"], batch["box"])
        labels = batch["labels"].float()
        valid_pixels = valid_mask(batch["box"], images.shape[-1])
        logits = self.network(images)
        valid = F.interpolate(valid_pixels, size=logits.shape[-2:], mode="area")
        activation = soft_masks(logits.float(), valid, self.config.mask)

        terms, metrics = self._semantic_terms(images, activation, labels, batch, observe)
        if weights.regularization:
            shrunk = labels if weights.regularize == "present" else torch.ones_like(labels)
            terms["regularization"] = losses.activation_regularization(activation, shrunk, valid)
        if weights.equivariance:
            terms["equivariance"] = self._equivariance(
                images, activation, valid_pixels, labels, draw
            )
        if weights.complementation:
            terms["complementation"] = losses.complementation_loss(activation, labels, valid)
        if weights.classification:
            scores = classification_scores(logits, valid)
            terms["classification"] = classifier_loss(scores, labels)
        if weights.pseudo_labels:
            terms["pseudo_labels"] = pseudo_label_loss(logits.float(), batch["target"], labels)
        loss = torch.stack([getattr(weights, n) * t.mean() for n, t in terms.items()]).sum()
        metrics |= {f"loss_{name}": term.mean().detach() for name, term in terms.items()}
        metrics |= collapse_metrics(activation.detach(), labels, valid)
        return loss, metrics

    def _weights_of_step(self) -> LossConfig:
        """Returns the weights, with that of a loss that this step leaves out at 0.

        Computing a regularising loss every n-th step with n times its weight is StyleGAN2's lazy
        regularisation (arXiv 1912.04958, section 3.1).
        """
        weights, every = self.config.losses, self.config.equivariance_every
        is_used = self.step % every == 0
        return replace(weights, equivariance=weights.equivariance * every if is_used else 0.0)

    def _semantic_terms(
        self,
        images: torch.Tensor,
        activation: torch.Tensor,
        labels: torch.Tensor,
        batch: Batch,
        observe: bool,
    ) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        """Returns the category-foreground and category-background losses, (B,) each, and metrics.

        A loss with a weight of 0 is not computed. The metrics show a collapse. They exist only
        where `observe` is true; a masked image without a loss then passes the encoder without
        gradients.
        """
        image_of, class_of = pairs_of(batch)
        maps = self._encoder_sized(activation[image_of, class_of][:, None])
        if self.config.binarisation_width:
            # Binarised after resizing, so that the edges of regions stay sharp for the encoder.
            maps = binarise_softly(
                maps, batch["mask_threshold"][image_of, class_of], self.config.binarisation_width
            )
        inputs = self._encoder_sized(images)[image_of]
        fill = self._fill(batch, image_of, class_of)
        masks = {FOREGROUND: maps, BACKGROUND: 1 - maps}
        masked = {
            part: inputs * mask + fill * (1 - mask)
            for part, mask in masks.items()
            if observe or getattr(self.config.losses, part)
        }
        similarity = self._similarity(masked, observe)

        present = F.pad(labels.bool(), (1, 0), value=True)[image_of]
        own = F.one_hot(class_of + 1, present.shape[1]).bool()
        num_pairs = pair_labels(batch).sum(dim=1).clamp(min=1)
        terms = {}
        for part, category_loss in CATEGORY_LOSSES.items():
            if getattr(self.config.losses, part):
                form = self.config.losses.form
                value = category_loss(similarity[part], own, present & ~own, form)
                total = value.new_zeros(len(num_pairs)).index_add(0, image_of, value)
                terms[part] = total / num_pairs
        return terms, _observed(similarity, own) if observe else {}

    def _similarity(
        self, masked: dict[str, torch.Tensor], observe: bool
    ) -> dict[str, torch.Tensor]:
        """Returns (N, K) similarities of the masked images that a loss or `observe` needs."""
        learnt = [part for part in masked if getattr(self.config.losses, part)]
        found = {}
        if learnt:
            similarities = self.encoder.similarity(torch.cat([masked[part] for part in learnt]))
            found = dict(zip(learnt, similarities.chunk(len(learnt)), strict=True))
        if observe:
            with torch.no_grad():
                for part in masked.keys() - found.keys():
                    found[part] = self.encoder.similarity(masked[part])
        return found

    def _encoder_sized(self, maps: torch.Tensor) -> torch.Tensor:
        size = (self.config.encoder_input_px, self.config.encoder_input_px)
        if maps.shape[-2:] == torch.Size(size):
            return maps
        return F.interpolate(maps, size=size, mode="bilinear", align_corners=False)

    def _fill(
        self, batch: Batch, image_of: torch.Tensor, class_of: torch.Tensor
    ) -> torch.Tensor | float:
        """Returns (N, 3, H, W) pixels that replace the masked ones of each pair; 0 is mean grey."""
        if self.config.fill == "grey":
            return 0.0
        fillers = self._encoder_sized(normalise(batch["filler"], batch["filler_box"]))
        shows_class = batch["filler_labels"][image_of, class_of].bool()
        return fillers[image_of] * ~shows_class[:, None, None, None]

    def _equivariance(
        self,
        images: torch.Tensor,
        activation: torch.Tensor,
        valid: torch.Tensor,
        labels: torch.Tensor,
        draw: np.random.Generator,
    ) -> torch.Tensor:
        scale = float(draw.choice(self.config.equivariance_scales))
        mirrored = bool(draw.integers(2))

        def mirror(maps: torch.Tensor) -> torch.Tensor:
            return maps.flip(-1) if mirrored else maps

        small = F.interpolate(
            mirror(images), scale_factor=scale, mode="bilinear", align_corners=False, antialias=True
        )
        small_logits = self.network(small).float()
        size = small_logits.shape[-2:]
        transformed = F.interpolate(
            mirror(activation), size=size, mode="bilinear", align_corners=False
        )
        small_valid = F.interpolate(mirror(valid), size=size, mode="area")
        of_transformed = soft_masks(small_logits, small_valid, self.config.mask)
        return losses.equivariance_loss(transformed, of_transformed, labels, small_valid)


def _observed(similarity: dict[str, torch.Tensor], own: torch.Tensor) -> dict[str, torch.Tensor]:
    """Metrics that show incomplete maps, and maps of context (docs/method.md, Collapse)."""
    num_pairs = max(len(own), 1)
    return {
        "similarity_foreground": (similarity[FOREGROUND] * own).sum().detach() / num_pairs,
        "similarity_background": (similarity[BACKGROUND] * own).sum().detach() / num_pairs,
        # Similarity to background in the masked image: high where the map covers context.
        "similarity_context": similarity[FOREGROUND][:, 0].sum().detach() / num_pairs,
    }


class ActivationTask(ImageLabelTask):
    """Builds the activation network.

    Args:
        backbone: settings of the backbone, the same as the CAM classifier's.
        encoder: bytes of the semantic encoder's checkpoint.
        classifier: bytes of the CAM classifier's checkpoint to start from. None starts from the
            backbone's weights.
    """

    def __init__(
        self,
        config: ActivationConfig,
        backbone: BackboneConfig,
        class_names: Sequence[str],
        encoder: bytes,
        classifier: bytes | None,
    ) -> None:
        super().__init__(config.training, class_names)
        self.config = config
        self.backbone = backbone
        self.encoder = encoder
        self.classifier = classifier
        self.architecture: dict[str, Any] = {
            "backbone_name": backbone.name,
            "output_stride": backbone.output_stride,
            "dilate": backbone.dilate,
            "num_classes": self.num_classes,
        }

    @property
    def sampler(self) -> Sampler:
        return MaskableCrops(
            self.training,
            self.num_classes,
            with_filler=self.config.fill == "image",
            with_thresholds=self.config.binarisation_width > 0,
            with_pseudo_labels=self.config.losses.pseudo_labels > 0,
            num_chosen=self.config.masked_classes,
        )

    def build(self) -> TrainingModule:
        encoder = load_network(self.encoder, "encoder", "semantic_encoder", self.class_names)
        assert isinstance(encoder, SemanticEncoder)
        if self.classifier is not None:
            network = load_network(
                self.classifier, "classifier", "activation_network", self.class_names
            )
        else:
            network = ActivationNetwork(**self.architecture)
            load_backbone_weights(network.backbone, self.backbone.weights)
        assert isinstance(network, ActivationNetwork)
        return ActivationModule(network, encoder, self.config, self.backbone)
