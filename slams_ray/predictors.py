"""Batch dictionaries in, batch dictionaries out: plain callables that know nothing of Ray."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import nn

from slams_ray.core.activation import fuse_pair, max_normalise, quantise
from slams_ray.core.seed import stored_size
from slams_ray.data.image import decode_image
from slams_ray.data.transforms import normalise, pyramid

Batch = dict[str, list]  # type: ignore[type-arg]
Enter = Callable[[str], None]


def _pass(image_id: str) -> None:
    """Nobody wants to know."""


class ActivationPredictor:
    """Multi-scale, mirrored CAM inference of one or more networks (method section 5).

    Args:
        networks: output column -> activation network. All see the same decoded, scaled images.
        max_logits: output column -> what higher logits of its network count as.
    """

    def __init__(
        self,
        networks: dict[str, nn.Module],
        *,
        scales: tuple[float, ...],
        flip: bool,
        device: torch.device,
        max_logits: Mapping[str, float | None] | None = None,
    ) -> None:
        self.max_logits = max_logits or {}
        self.networks = {k: n.to(device).eval() for k, n in networks.items()}
        self.scales, self.flip, self.device = scales, flip, device

    def __call__(self, batch: Batch, enter: Enter = _pass) -> Batch:
        """Adds a column per network: (P, h, w) uint8 at stride 4, max-normalised, present classes.

        Reads image_id, image (encoded bytes) and image_labels (class indices).

        Args:
            enter: called with the id of each image before it is worked on.
        """
        result: Batch = {column: [] for column in self.networks}
        for image_id, data, labels in zip(
            batch["image_id"], batch["image"], batch["image_labels"], strict=True
        ):
            enter(image_id)
            maps = self.activate(decode_image(data, image_id), labels)
            for column, activation in maps.items():
                result[column].append(activation)
        return batch | result

    @torch.inference_mode()
    def activate(self, image: np.ndarray, class_indices: Sequence[int]) -> dict[str, np.ndarray]:
        """Stored maps of one (H, W, 3) uint8 image for the classes it is labelled with."""
        size = stored_size(*image.shape[:2])
        if not len(class_indices):
            return {column: np.zeros((0, *size), np.uint8) for column in self.networks}
        channels = torch.as_tensor(np.asarray(class_indices, np.int64) - 1, device=self.device)
        pixels = _pixels(image, self.device)
        fused: dict[str, torch.Tensor] = {}
        for inputs in pyramid(pixels, self.scales, self.flip):
            for column, network in self.networks.items():
                logits = network(inputs)[:, channels].float()
                pair = fuse_pair(
                    logits[0], logits[1] if self.flip else None, size, self.max_logits.get(column)
                )
                fused[column] = fused[column] + pair if column in fused else pair
        return {column: quantise(max_normalise(maps)) for column, maps in fused.items()}


class SegmentationPredictor:
    """Multi-scale, mirrored semantic segmentation: mean of the softmax, then argmax."""

    def __init__(
        self,
        network: nn.Module,
        *,
        scales: tuple[float, ...],
        flip: bool,
        device: torch.device,
    ) -> None:
        self.network = network.to(device).eval()
        self.scales, self.flip, self.device = scales, flip, device

    def __call__(self, batch: Batch, enter: Enter = _pass) -> Batch:
        """Adds prediction: (H, W) uint8 class indices. Reads image_id and image (encoded bytes).

        Args:
            enter: called with the id of each image before it is worked on.
        """
        predictions = []
        for image_id, data in zip(batch["image_id"], batch["image"], strict=True):
            enter(image_id)
            predictions.append(self.predict(decode_image(data, image_id)))
        return batch | {"prediction": predictions}

    @torch.inference_mode()
    def predict(self, image: np.ndarray) -> np.ndarray:
        """(H, W) uint8 class indices of one (H, W, 3) uint8 image."""
        pixels = _pixels(image, self.device)
        total: torch.Tensor | None = None
        for inputs in pyramid(pixels, self.scales, self.flip):
            logits = nn.functional.interpolate(
                self.network(inputs).float(),
                size=image.shape[:2],
                mode="bilinear",
                align_corners=False,
            )
            scores = logits.softmax(dim=1)
            pair = scores[0] + scores[1].flip(-1) if self.flip else scores[0]
            total = pair if total is None else total + pair
        assert total is not None
        return total.argmax(dim=0).to(torch.uint8).cpu().numpy()


def _pixels(image: np.ndarray, device: torch.device) -> torch.Tensor:
    """(1, 3, H, W) normalised, channels last: as the networks compute, and as images lie."""
    pixels = normalise(torch.from_numpy(image.copy())[None].to(device))
    return pixels.contiguous(memory_format=torch.channels_last)
