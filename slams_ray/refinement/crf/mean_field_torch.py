"""Dense CRF on permutohedral lattices in torch, for GPUs. The algorithm is that of `mean_field`."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import numpy as np
import torch
import torch.nn.functional as F

from slams_ray.refinement.crf.kernels import (
    Crf,
    CrfKernels,
    check_image,
    check_num_labels,
    check_unary,
)
from slams_ray.refinement.crf.lattice_points import kernel_points, relative_energy
from slams_ray.refinement.crf.lattice_torch import build_lattice

MAX_CHANNELS = 16
"""Largest number of channels in a pass, unless one unary has more: unaries times (labels - 1). Each
channel needs about 8 floats per pixel and 2 per vertex. A noisy image has up to 6 vertices per
pixel."""


class TorchCrf(Crf):
    """Mean-field inference on one image, whose lattices are built once.

    Args:
        image: (H, W, 3) uint8 RGB.
        num_labels: L >= 2; the lattices do not depend on it.
        device: torch device of the computation.
    """

    def __init__(
        self,
        image: np.ndarray,
        num_labels: int,
        kernels: CrfKernels,
        device: str = "cpu",
    ) -> None:
        check_image(image)
        check_num_labels(num_labels)
        self._shape = (num_labels, *image.shape[:2])
        self._device = torch.device(device)
        self._kernels = [
            (build_lattice(torch.from_numpy(features).to(self._device)), compat)
            for features, compat in kernel_points(image, kernels)
        ]

    def infer_all(self, unaries: Iterable[np.ndarray], iterations: int) -> Iterator[np.ndarray]:
        """Yields the posterior of each energy. Holds as many energies as share a pass."""
        for posterior in self._passes(unaries, iterations):
            yield from posterior.permute(1, 2, 0).reshape(-1, *self._shape).cpu().numpy()

    def label_all(self, unaries: Iterable[np.ndarray], iterations: int) -> Iterator[np.ndarray]:
        """Yields the (H, W) uint8 labels for each energy, found on the device."""
        for posterior in self._passes(unaries, iterations):
            labels = posterior.argmax(dim=2).to(torch.uint8).T
            yield from labels.reshape(-1, *self._shape[1:]).cpu().numpy()

    def _passes(self, unaries: Iterable[np.ndarray], iterations: int) -> Iterator[torch.Tensor]:
        num_shared = max(1, MAX_CHANNELS // (self._shape[0] - 1))
        waiting = iter(unaries)
        while group := list(islice(waiting, num_shared)):
            yield self._infer_together(group, iterations)

    @torch.inference_mode()
    def _infer_together(self, unaries: Sequence[np.ndarray], iterations: int) -> torch.Tensor:
        """Returns the (N, G, L) posteriors of G energies, computed in one pass over N pixels."""
        for unary in unaries:
            check_unary(unary, self._shape)
        energy = np.concatenate([relative_energy(unary) for unary in unaries])
        logits = torch.from_numpy(energy).to(self._device).T.contiguous()
        posterior = _softmax(logits, len(unaries))
        for _ in range(iterations):
            relative = (posterior[..., 1:] - posterior[..., :1]).flatten(1)
            updated = logits.clone()
            for lattice, compat in self._kernels:
                updated.add_(lattice.filter(relative), alpha=compat)
            posterior = _softmax(updated, len(unaries))
        return posterior


def _softmax(logits: torch.Tensor, num_unaries: int) -> torch.Tensor:
    """Turns (N, G (L - 1)) logits relative to label 0 into (N, G, L) probabilities."""
    others = logits.view(len(logits), num_unaries, -1)
    return F.pad(others, (1, 0)).softmax(dim=2)
