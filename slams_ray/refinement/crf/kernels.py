"""What every CRF program shares: kernels, interface, checks of its input.

Building the bilateral lattice depends on image and kernel but not on the unary, so one CRF serves
any number of unaries (thresholds, alphas) of the same image.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np


@dataclass(frozen=True, kw_only=True)
class CrfKernels:
    """Pairwise kernels: a Gaussian in position and a bilateral in position and colour.

    Standard deviations in pixels (sxy) and 8-bit colour steps (srgb); compatibilities are Potts
    weights.
    """

    gaussian_sxy_px: float
    gaussian_compat: float
    bilateral_sxy_px: float
    bilateral_srgb: float
    bilateral_compat: float


class Crf(Protocol):
    """Mean-field inference on one image."""

    def infer(self, unary: np.ndarray, iterations: int) -> np.ndarray:
        """(L, H, W) posterior, float32, of an (L, H, W) energy (negative log probability)."""
        ...

    def infer_all(self, unaries: Iterable[np.ndarray], iterations: int) -> Iterator[np.ndarray]:
        """The posterior of each of several energies."""
        ...


def check_image(image: np.ndarray) -> None:
    # pydensecrf reads raw memory: a wrong dtype, layout or shape would crash the process, not
    # raise.
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise ValueError(f"image is {image.dtype}{image.shape}, expected uint8 (H, W, 3)")


def check_num_labels(num_labels: int) -> None:
    if num_labels < 2:
        raise ValueError(f"num_labels is {num_labels}, expected >= 2")


def check_unary(unary: np.ndarray, shape: tuple[int, ...]) -> None:
    if unary.shape != shape:
        raise ValueError(f"unary is {unary.shape}, expected {shape}")
