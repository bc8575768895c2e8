"""Dense CRF on permutohedral lattices in torch, for GPUs; the method is that of `mean_field`."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import numpy as np
import torch
import torch.nn.functional as F

from slams_ray.refinement.crf.kernels import CrfKernels, check_image, check_num_labels, check_unary
from slams_ray.refinement.crf.lattice_points import kernel_points, relative_energy
from slams_ray.refinement.crf.lattice_torch import build_lattice

MAX_CHANNELS = 16
"""Labels less one, times unaries, that one pass takes, more only where one unary has more. A pass
holds about 8 floats a channel for each pixel and 2 for each vertex, of which there are up to 6 a
pixel where an image is noise."""


class TorchCrf:
    """Mean-field inference on one image, its lattices built once.

    Args:
        image: (H, W, 3) uint8 RGB.
        num_labels: L >= 2; the lattices do not depend on it.
        device: where it computes.
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

    def infer(self, unary: np.ndarray, iterations: int) -> np.ndarray:
        """(L, H, W) posterior, float32, of an (L, H, W) energy (negative log probability)."""
        return next(self.infer_all([unary], iterations))

    def infer_all(self, unaries: Iterable[np.ndarray], iterations: int) -> Iterator[np.ndarray]:
        """The posterior of each of several energies; holds as many as share a pass."""
        together = max(1, MAX_CHANNELS // (self._shape[0] - 1))
        waiting = iter(unaries)
        while group := list(islice(waiting, together)):
            yield from self._infer_together(group, iterations)

    @torch.inference_mode()
    def _infer_together(self, unaries: Sequence[np.ndarray], iterations: int) -> np.ndarray:
        """(G, L, H, W) posteriors of G energies in one pass."""
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
        return posterior.permute(1, 2, 0).reshape(-1, *self._shape).cpu().numpy()


def _softmax(logits: torch.Tensor, num_unaries: int) -> torch.Tensor:
    """(N, G, L) probabilities of (N, G (L - 1)) logits relative to label 0."""
    others = logits.view(len(logits), num_unaries, -1)
    return F.pad(others, (1, 0)).softmax(dim=2)
