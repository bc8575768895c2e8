"""Base of the predictors: which images a network takes at once."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch

from slams_ray.data.batches import Enter, Indexed, batches_of_one_size, decoded_batches
from slams_ray.data.transforms import normalise
from slams_ray.errors import ConfigError

Batch = dict[str, list]  # type: ignore[type-arg]
Work = Callable[[list[Indexed]], None]

GPU_BATCH = 8
"""Most images of one size in a batch on a GPU; a CPU takes one at a time. Not measured."""
GPU_BATCH_PIXELS = 8 * 512 * 512
"""Most pixels in a batch on a GPU, so that large photographs do not fill its memory."""


class Predictor:
    """Base class of multi-scale, mirrored inference on batches of encoded images.

    Args:
        batch_size: images of one size that are inferred together; None chooses by device.
    """

    def __init__(
        self,
        *,
        scales: tuple[float, ...],
        flip: bool,
        device: torch.device,
        batch_size: int | None = None,
    ) -> None:
        self.scales, self.flip, self.device = scales, flip, device
        on_gpu = device.type == "cuda"
        self.batch_size = batch_size or (GPU_BATCH if on_gpu else 1)
        self.ahead = 2 * self.batch_size if on_gpu else 0
        self.max_pixels = GPU_BATCH_PIXELS if on_gpu else None

    def decoded(self, batch: Batch, enter: Enter | None) -> Iterator[list[Indexed]]:
        """Yields decoded images of a batch with their indices, in groups of one size."""
        return decoded_batches(
            batch["image_id"], batch["image"], self.batch_size, self.ahead, enter, self.max_pixels
        )

    def infer(self, batch: Batch, enter: Enter | None, work: Work) -> None:
        """Calls `work` with each group of images, and with halves of a group that does not fit into
        the GPU's memory.

        Raises:
            ConfigError: a single image does not fit.
        """
        for group in self.decoded(batch, enter):
            self._infer_in_halves(group, work)

    def infer_decoded(self, images: Sequence[np.ndarray], work: Work) -> None:
        """Does with (H, W, 3) uint8 images of any sizes what `infer` does with encoded ones."""
        for group in batches_of_one_size(enumerate(images), self.batch_size, self.max_pixels):
            self._infer_in_halves(group, work)

    def _infer_in_halves(self, group: list[Indexed], work: Work) -> None:
        try:
            work(group)
            return
        except torch.OutOfMemoryError as error:
            if len(group) == 1:
                height, width = group[0][1].shape[:2]
                raise ConfigError(
                    f"an image of {height} x {width} pixels does not fit into the memory of "
                    f"{self.device} at scales {self.scales}: lower data.max_side_px or the scales"
                ) from error
        # Outside of the handler, because the error holds the tensors of the first attempt.
        half = len(group) // 2
        for part in (group[:half], group[half:]):
            self._infer_in_halves(part, work)

    def pixels(self, images: Sequence[np.ndarray]) -> torch.Tensor:
        """Returns (B, 3, H, W) normalised images, channels last as the networks compute."""
        stacked = torch.from_numpy(np.stack(images)).to(self.device)
        return normalise(stacked)
