"""OC-CSE and GAIN: a judge must not recognise a class where its map erased the image.

OC-CSE (Kweon et al., ICCV 2021) and GAIN (Li et al., CVPR 2018). For one present class t of each
image, with logits M and the labels y:

- m = ReLU(M_t) / (max + 1e-5) over the image, enlarged to image size; x_m = x (1 - m);
- OC-CSE: L = L_cls + w BCE(judge(x_m), y without t), where the judge is the frozen CAM classifier;
- GAIN: L = L_cls + w s_t(x_m), where s are the scores of the network itself.

Gradients pass through m. Published GAIN trains through the judge as well, which lets the network
cheat; here the judge is a copy without gradients. The class t is drawn with the sample, so it
depends on random seed, step and place in the batch.
"""

import numpy as np
import torch
from torch.func import functional_call
from torch.nn import functional as F

from slams_ray.config import BackboneConfig, OccseConfig
from slams_ray.networks.activation_network import ActivationNetwork
from slams_ray.networks.batch_norm import fold_batch_norm
from slams_ray.networks.map_norms import max_normalised
from slams_ray.systems.after_cam import AfterCamTask, system_after_cam
from slams_ray.systems.classification import classifier_loss
from slams_ray.systems.crops import ErasedClassCrops
from slams_ray.systems.maps import collapse_metrics, crops_of, mean_over_image, resized
from slams_ray.training.samples import Sampler
from slams_ray.training.task import Batch, TrainingModule


class OccseModule(TrainingModule):
    """Trains the maps through a judge that classifies erased images.

    Args:
        judge: the CAM classifier; None judges by the network itself.
    """

    network: ActivationNetwork

    def __init__(
        self,
        network: ActivationNetwork,
        judge: ActivationNetwork | None,
        config: OccseConfig,
        backbone: BackboneConfig,
    ) -> None:
        super().__init__(network, backbone)
        self.config = config
        self.judge = judge
        if judge is not None:
            fold_batch_norm(judge.eval()).requires_grad_(False)

    def train(self, mode: bool = True) -> "OccseModule":
        super().train(mode)
        if self.judge is not None:
            self.judge.eval()
        return self

    def forward(
        self, batch: Batch, draw: np.random.Generator, observe: bool
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        images, pixels = crops_of(batch)
        labels = batch["labels"].float()
        logits = self.network(images)
        valid = resized(pixels, logits.shape[-2:])
        classification = classifier_loss(mean_over_image(logits, valid), labels).mean()
        maps = max_normalised(logits, valid)
        # All zero where there is no class, and 0 erases nothing.
        chosen = F.one_hot(batch["erased"] + 1, labels.shape[1] + 1)[:, 1:].float()
        mask = erasing_mask(maps, chosen, pixels, self.config)
        scores = self._judged(images * (1 - mask), pixels)
        judged = self._judges_loss(scores, labels, chosen)
        first, last = self.config.weight
        weight = first + (last - first) * self.progress
        metrics = {
            "loss_classification": classification.detach(),
            "loss_erased": judged.detach(),
            "erased_share": mean_over_image(mask.detach(), pixels).mean(),
        } | collapse_metrics(maps.detach(), labels, valid)
        if observe:
            with torch.no_grad():
                before = self._judged(images, pixels)
            metrics |= judged_metrics(before, scores.detach(), labels, chosen)
        return classification + weight * judged, metrics

    def _judged(self, images: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
        """Returns the (B, C) scores of the judge, with gradients to the images alone."""
        if self.judge is not None:
            logits = self.judge(images)
        else:
            weights = {name: value.detach() for name, value in self.network.named_parameters()}
            logits = functional_call(self.network, weights, (images,))
        return mean_over_image(logits.float(), resized(pixels, logits.shape[-2:]))

    def _judges_loss(
        self, scores: torch.Tensor, labels: torch.Tensor, chosen: torch.Tensor
    ) -> torch.Tensor:
        if self.config.target == "score":
            return (scores * chosen).sum(dim=1).mean()
        return (classifier_loss(scores, labels - chosen) * chosen.sum(dim=1)).mean()


def erasing_mask(
    maps: torch.Tensor, chosen: torch.Tensor, pixels: torch.Tensor, config: OccseConfig
) -> torch.Tensor:
    """(B, 1, H, W) in [0, 1], 1 where the map of the chosen class erases all; 0 on padding.

    Args:
        maps: (B, C, h, w) in [0, 1].
        chosen: (B, C), 1 for the class to erase; all 0 erases nothing.
        pixels: (B, 1, H, W) 1 on image, 0 on padding.
    """
    mask = resized((maps * chosen[..., None, None]).sum(dim=1, keepdim=True), pixels.shape[-2:])
    if config.mask == "sigmoid":
        mask = (config.mask_slope * (mask - config.mask_threshold)).sigmoid()
    return mask * pixels * chosen.sum(dim=1)[:, None, None, None]


def judged_metrics(
    before: torch.Tensor, after: torch.Tensor, labels: torch.Tensor, chosen: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Mean scores of the judge for erased classes, and for the others of those images.

    Args:
        before, after: (B, C) scores of whole and of erased images.
        labels, chosen: (B, C) present classes, and the erased one.
    """
    others = (labels - chosen) * chosen.sum(dim=1, keepdim=True)
    found = {}
    for part, classes in (("erased", chosen), ("others", others)):
        for when, scores in (("before", before), ("after", after)):
            found[f"judged_{part}_{when}"] = (scores * classes).sum() / classes.sum().clamp(min=1)
    return found


class OccseTask(AfterCamTask[OccseConfig]):
    """Builds the network and its judge."""

    @property
    def sampler(self) -> Sampler:
        return ErasedClassCrops(self.training, self.num_classes)

    def build(self) -> TrainingModule:
        network = self.start(self.config.initialise_from_cam)
        judge = self.trained_classifier() if self.config.judge == "classifier" else None
        return OccseModule(network, judge, self.config, self.backbone)


SYSTEM = system_after_cam(
    "occse",
    "OC-CSE",
    OccseTask,
    lambda config: config.initialise_from_cam or config.judge == "classifier",
)
