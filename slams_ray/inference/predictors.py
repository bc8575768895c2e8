"""Predictors: plain callables from batch dictionary to batch dictionary, independent of Ray."""

from collections.abc import Callable, Iterator, Mapping, Sequence

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


Refine = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(H, W, 3) uint8 image and (K, H, W) float32 probabilities -> (H, W) uint8 class indices."""


class SegmentationPredictor(Predictor):
    """Segments images: argmax of the softmax summed over scales and mirror images.

    Args:
        refine: refines each prediction by its image, such as a CRF; None predicts only.
        scales, flip, device, batch_size: see `Predictor`.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        scales: tuple[float, ...],
        flip: bool,
        device: torch.device,
        batch_size: int | None = None,
        refine: Refine | None = None,
    ) -> None:
        super().__init__(scales=scales, flip=flip, device=device, batch_size=batch_size)
        self.network = network.to(device).eval()
        self.refine = refine

    def __call__(self, batch: Batch, enter: Enter | None = None) -> Batch:
        """Adds prediction: (H, W) uint8 class indices. Reads image_id and image (encoded bytes).

        With `refine` it adds refined_prediction, of the same form.

        Args:
            enter: see `decoded_batches`.
        """
        num_images = len(batch["image_id"])
        found: Batch = {"prediction": [None] * num_images}
        if self.refine is not None:
            found["refined_prediction"] = [None] * num_images

        def segment(group: list[Indexed]) -> None:
            indices, images = zip(*group, strict=True)
            scores = self._scores(images)
            for index, prediction in zip(indices, _labels(scores), strict=True):
                found["prediction"][index] = prediction
            if self.refine is not None:
                for index, refined in zip(indices, self._refined(images, scores), strict=True):
                    found["refined_prediction"][index] = refined

        self.infer(batch, enter, segment)
        return batch | found

    def predict(self, image: np.ndarray) -> np.ndarray:
        """Returns (H, W) uint8 class indices of one (H, W, 3) uint8 image, after `refine`."""
        return self.predict_with_confidence(image)[0]

    def predict_with_confidence(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns class indices as `predict` does, and the probability of each.

        Returns:
            (H, W) uint8, and (H, W) float32 in [0, 1]: the mean softmax over scales and mirror
            images, before `refine`, of the class that is chosen after it.
        """
        return self._segmented([image])[0]

    def predict_each(self, images: Sequence[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Returns what `predict_with_confidence` does for each image.

        Images of one size share a forward, up to `batch_size` of them.
        """
        found: dict[int, tuple[np.ndarray, np.ndarray]] = {}

        def segment(group: list[Indexed]) -> None:
            indices, own = zip(*group, strict=True)
            found.update(zip(indices, self._segmented(own), strict=True))

        self.infer_decoded(images, segment)
        return [found[index] for index in range(len(images))]

    @torch.inference_mode()
    def _segmented(self, images: Sequence[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Labels and confidence of images of one size, in one forward."""
        scores = self._scores(images)
        labels = np.stack(self._refined(images, scores)) if self.refine else _labels(scores)
        chosen = torch.from_numpy(labels).to(scores.device, torch.int64)[:, None]
        probability = scores.gather(1, chosen)[:, 0] / self._num_passes
        return list(zip(labels, probability.cpu().numpy(), strict=True))

    @property
    def _num_passes(self) -> int:
        return len(self.scales) * (2 if self.flip else 1)

    @torch.inference_mode()
    def _scores(self, images: Sequence[np.ndarray]) -> torch.Tensor:
        """Returns the (B, K, H, W) sum of the softmax of images of one size."""
        size = images[0].shape[:2]
        total: torch.Tensor | None = None
        for inputs in pyramid(self.pixels(images), self.scales, self.flip):
            logits = nn.functional.interpolate(
                self.network(inputs).float(), size=size, mode="bilinear", align_corners=False
            )
            scores = logits.softmax(dim=1)
            if self.flip:
                scores = scores[: len(images)] + scores[len(images) :].flip(-1)
            total = scores if total is None else total + scores
        assert total is not None
        return total

    def _refined(self, images: Sequence[np.ndarray], scores: torch.Tensor) -> list[np.ndarray]:
        assert self.refine is not None
        return [
            self.refine(image, own / self._num_passes)
            for image, own in zip(images, scores.cpu().numpy(), strict=True)
        ]


def _labels(scores: torch.Tensor) -> np.ndarray:
    """(B, H, W) uint8 class indices of (B, K, H, W) scores."""
    return scores.argmax(dim=1).to(torch.uint8).cpu().numpy()
