"""Predictor of maps: a plain callable from batch dictionary to batch dictionary."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import nn

from slams_ray.data.batches import Enter, Indexed
from slams_ray.data.stored_maps import stored_size
from slams_ray.data.transforms import pyramid
from slams_ray.inference.activation import (
    fuse_pair,
    max_normalise,
    quantise,
    sum_pair,
    to_host,
)
from slams_ray.inference.image_batches import Batch, Predictor
from slams_ray.networks.conditioned_network import ConditionedNetwork


class ActivationPredictor(Predictor):
    """Infers the maps of one or more networks (docs/method.md, Inference).

    Args:
        networks: output column -> activation network. They share decoded and scaled images.
        max_logits: output column -> value that higher logits are clipped to; None clips nothing.
        scales, flip, device, batch_size: see `Predictor`.
    """

    def __init__(
        self,
        networks: dict[str, nn.Module],
        *,
        scales: tuple[float, ...],
        flip: bool,
        device: torch.device,
        max_logits: Mapping[str, float | None] | None = None,
        batch_size: int | None = None,
    ) -> None:
        super().__init__(scales=scales, flip=flip, device=device, batch_size=batch_size)
        self.max_logits = max_logits or {}
        self.networks = {k: n.to(device).eval() for k, n in networks.items()}

    def __call__(self, batch: Batch, enter: Enter | None = None) -> Batch:
        """Adds a column per network: (P, h, w) uint8 normalised maps of present classes, stride 4.

        Reads image_id, image (encoded bytes) and image_labels (class indices). It also reads
        pixel_labels, (H, W) uint8 that a network was trained on, where the batch has them.

        Args:
            enter: see `decoded_batches`.
        """
        labels = batch["image_labels"]
        pixel_labels = batch.get("pixel_labels")
        result: Batch = {column: [None] * len(labels) for column in self.networks}

        def activate(group: list[Indexed]) -> None:
            indices, images = zip(*group, strict=True)
            found = self.activate_batch(
                images,
                [labels[index] for index in indices],
                None if pixel_labels is None else [pixel_labels[index] for index in indices],
            )
            for index, maps in zip(indices, found, strict=True):
                for column, activation in maps.items():
                    result[column][index] = activation

        self.infer(batch, enter, activate)
        return batch | result

    @torch.inference_mode()
    def activate_batch(
        self,
        images: Sequence[np.ndarray],
        labels: Sequence[Sequence[int]],
        pixel_labels: Sequence[np.ndarray] | None = None,
    ) -> list[dict[str, np.ndarray]]:
        """Returns output column -> stored maps of the labelled classes, for images of one size.

        Args:
            images: (H, W, 3) uint8 each.
            labels: class indices of each image.
            pixel_labels: (H, W) uint8 each, for networks that were trained on them.
        """
        size = stored_size(*images[0].shape[:2])
        found = [{c: np.zeros((0, *size), np.uint8) for c in self.networks} for _ in images]
        labelled = [b for b, class_indices in enumerate(labels) if len(class_indices)]
        if not labelled:
            return found
        channels = self._channels([labels[b] for b in labelled])
        foregrounds: Sequence[torch.Tensor | None] = [None] * len(labelled)
        if pixel_labels is not None:
            foregrounds = list(self._foregrounds([pixel_labels[b] for b in labelled], size))
        fused: dict[tuple[str, int], torch.Tensor] = {}
        for inputs, column in self._views([images[b] for b in labelled]):
            network = self.networks[column]
            logits = self._logits(network, inputs, channels)
            for position, present in enumerate(channels):
                own = logits[position :: len(labelled)].float()
                mirrored = own[1] if len(own) > 1 else None
                if isinstance(network, ConditionedNetwork):
                    pair = sum_pair(own[0], mirrored, size)
                else:
                    pair = fuse_pair(
                        own[0][present],
                        None if mirrored is None else mirrored[present],
                        size,
                        self.max_logits.get(column),
                    )
                key = column, position
                fused[key] = fused[key] + pair if key in fused else pair
        stored = {
            (column, position): quantise(
                self._normalised(column, maps, channels[position], foregrounds[position])
            )
            for (column, position), maps in fused.items()
        }
        for (column, position), maps in zip(stored, to_host(list(stored.values())), strict=True):
            found[labelled[position]][column] = maps
        return found

    def _channels(self, labels: Sequence[Sequence[int]]) -> Sequence[torch.Tensor]:
        """Returns the present classes of each image, counted from 0, copied to the device once."""
        lengths = [len(class_indices) for class_indices in labels]
        joined = torch.from_numpy(np.concatenate([np.asarray(own, np.int64) for own in labels]))
        return torch.split((joined - 1).to(self.device), lengths)

    def _normalised(
        self,
        column: str,
        maps: torch.Tensor,
        present: torch.Tensor,
        foreground: torch.Tensor | None,
    ) -> torch.Tensor:
        """Returns the maps of an image in [0, 1], of their sum over scales and mirror images."""
        network = self.networks[column]
        if isinstance(network, ConditionedNetwork):
            mean = maps / (len(self.scales) * (1 + self.flip))
            return network.maps_of_logits(mean, present, foreground)
        return max_normalise(maps)

    def _foregrounds(
        self, pixel_labels: Sequence[np.ndarray], size: tuple[int, int]
    ) -> torch.Tensor:
        """(B, h, w) bool on the stored grid, true where (H, W) labels are not background."""
        labelled = torch.from_numpy(np.stack(pixel_labels) != 0).to(self.device)[:, None].float()
        return nn.functional.interpolate(labelled, size=size, mode="nearest-exact")[:, 0] > 0

    def _logits(
        self, network: nn.Module, inputs: torch.Tensor, channels: Sequence[torch.Tensor]
    ) -> torch.Tensor:
        """Runs a network, and gives it the labels if it needs them.

        Args:
            channels: present classes of each image, counted from 0.
        """
        if not getattr(network, "needs_labels", False):
            return network(inputs)
        assert isinstance(network.num_classes, int)
        labels = inputs.new_zeros((len(channels), network.num_classes))
        for row, present in zip(labels, channels, strict=True):
            row[present] = 1
        return network(inputs, labels.repeat(len(inputs) // len(labels), 1))

    def _views(self, images: Sequence[np.ndarray]) -> Iterator[tuple[torch.Tensor, str]]:
        """Yields scaled images with the column of each network that sees them.

        A network may see them at their own size alone, or not mirrored (see `MAP_NETWORKS`).
        """
        columns: dict[tuple[tuple[float, ...], bool], list[str]] = {}
        for column, network in self.networks.items():
            native = getattr(network, "native_size_only", False)
            flip = self.flip and getattr(network, "mirrored", True)
            columns.setdefault(((1.0,) if native else self.scales, flip), []).append(column)
        pixels = self.pixels(images)
        for (scales, flip), names in columns.items():
            for inputs in pyramid(pixels, scales, flip):
                for column in names:
                    yield inputs, column
