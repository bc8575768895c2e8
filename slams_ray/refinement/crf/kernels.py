"""What all CRF implementations share: kernels, interface, checks of the input.

The bilateral lattice depends on the image and the kernel, but not on the unary. So one CRF serves
any number of unaries (thresholds, alphas) of an image.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from slams_ray.config import CrfConfig, PredictionCrfConfig


@dataclass(frozen=True, kw_only=True)
class CrfKernels:
    """Pairwise kernels: a Gaussian of position, and a bilateral one of position and colour.

    sxy and srgb are standard deviations in pixels and in 8-bit colour steps. Compatibilities are
    Potts weights.
    """

    gaussian_sxy_px: float
    gaussian_compat: float
    bilateral_sxy_px: float
    bilateral_srgb: float
    bilateral_compat: float


def kernels_of(config: CrfConfig | PredictionCrfConfig) -> CrfKernels:
    """Returns the kernels that the settings of a CRF name."""
    return CrfKernels(
        gaussian_sxy_px=config.gaussian_sxy_px,
        gaussian_compat=config.gaussian_compat,
        bilateral_sxy_px=config.bilateral_sxy_px,
        bilateral_srgb=config.bilateral_srgb,
        bilateral_compat=config.bilateral_compat,
    )


class Crf(ABC):
    """Mean-field inference on one image."""

    @abstractmethod
    def infer_all(self, unaries: Iterable[np.ndarray], iterations: int) -> Iterator[np.ndarray]:
        """Yields the (L, H, W) float32 posterior of each (L, H, W) energy, -log probability."""

    def infer(self, unary: np.ndarray, iterations: int) -> np.ndarray:
        """Returns the posterior of one energy."""
        return next(self.infer_all([unary], iterations))

    def label_all(self, unaries: Iterable[np.ndarray], iterations: int) -> Iterator[np.ndarray]:
        """Yields the (H, W) integers of the most probable labels for each energy."""
        return (posterior.argmax(axis=0) for posterior in self.infer_all(unaries, iterations))


def check_image(image: np.ndarray) -> None:
    """Raises ValueError unless the image is (H, W, 3) uint8 and not empty."""
    # pydensecrf reads raw memory: a wrong dtype, layout or shape would crash the process.
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise ValueError(f"image is {image.dtype}{image.shape}, expected uint8 (H, W, 3)")


def check_num_labels(num_labels: int) -> None:
    """Raises ValueError for fewer than two labels."""
    if num_labels < 2:
        raise ValueError(f"num_labels is {num_labels}, expected >= 2")


def check_unary(unary: np.ndarray, shape: tuple[int, ...]) -> None:
    """Raises ValueError unless the unary has the expected shape."""
    if unary.shape != shape:
        raise ValueError(f"unary is {unary.shape}, expected {shape}")
