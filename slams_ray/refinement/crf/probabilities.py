"""CRF of test time: refines the class probabilities of a segmentation network."""

from dataclasses import dataclass

import numpy as np

from slams_ray.refinement.crf.backends import Backend, make_crf
from slams_ray.refinement.crf.kernels import CrfKernels
from slams_ray.refinement.crf.unary import SMALLEST_SCORE


@dataclass(frozen=True, kw_only=True)
class ProbabilityCrf:
    """Turns probabilities into labels (docs/method.md, Segmentation network).

    The energy of a label is -log of its probability (DeepLab, arXiv 1606.00915, section 3.3).

    Attributes:
        iterations: mean-field iterations.
        backend, device: implementation of the CRF, and its device (see `make_crf`).
    """

    kernels: CrfKernels
    iterations: int
    backend: Backend = "numba"
    device: str = "cpu"

    def __call__(self, image: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
        """Returns (H, W) uint8 class indices.

        Args:
            image: (H, W, 3) uint8 RGB.
            probabilities: (K, H, W) float32, which sum to 1 over the classes.
        """
        energy = -np.log(probabilities.clip(SMALLEST_SCORE, 1)).astype(np.float32)
        crf = make_crf(self.backend, image, len(energy), self.kernels, self.device)
        return next(crf.label_all([energy], self.iterations)).astype(np.uint8)
