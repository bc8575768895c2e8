"""Dense CRF refinement, on the labels present in the image only.

Building the bilateral lattice depends on image and kernel but not on the unary, so one CRF serves
any number of unaries (thresholds, alphas) of the same image.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

import numpy as np
import pydensecrf.densecrf as densecrf
from pydensecrf.utils import unary_from_labels, unary_from_softmax

Backend = Literal["pydensecrf", "numba", "torch"]


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


def make_crf(
    backend: Backend,
    image: np.ndarray,
    num_labels: int,
    kernels: CrfKernels,
    device: str = "cpu",
) -> Crf:
    """The CRF of an (H, W, 3) uint8 image, its lattices built.

    Args:
        device: torch's name of where its backend computes; the others know CPUs only.
    """
    if backend == "pydensecrf":
        return DenseCrf(image, num_labels, kernels)
    # numba takes half a second to import, torch three.
    if backend == "numba":
        from slams_ray.core.mean_field import LatticeCrf

        return LatticeCrf(image, num_labels, kernels)
    if backend == "torch":
        from slams_ray.core.mean_field_torch import TorchCrf

        return TorchCrf(image, num_labels, kernels, device)
    raise ValueError(f"CRF backend is {backend!r}, expected one of {', '.join(get_args(Backend))}")


class DenseCrf:
    """The reference: pydensecrf's mean-field inference on one image, its lattices built once.

    Args:
        image: (H, W, 3) uint8 RGB.
        num_labels: L >= 2.
    """

    def __init__(self, image: np.ndarray, num_labels: int, kernels: CrfKernels) -> None:
        check_image(image)
        check_num_labels(num_labels)
        self._shape = (num_labels, *image.shape[:2])
        self._crf = densecrf.DenseCRF2D(image.shape[1], image.shape[0], num_labels)
        self._crf.addPairwiseGaussian(sxy=kernels.gaussian_sxy_px, compat=kernels.gaussian_compat)
        self._crf.addPairwiseBilateral(
            sxy=kernels.bilateral_sxy_px,
            srgb=kernels.bilateral_srgb,
            rgbim=np.array(image, order="C"),
            compat=kernels.bilateral_compat,
        )

    def infer(self, unary: np.ndarray, iterations: int) -> np.ndarray:
        """(L, H, W) posterior, float32, of an (L, H, W) energy (negative log probability)."""
        check_unary(unary, self._shape)
        flat = np.ascontiguousarray(unary.reshape(self._shape[0], -1), dtype=np.float32)
        self._crf.setUnaryEnergy(flat)
        return np.array(self._crf.inference(iterations), dtype=np.float32).reshape(self._shape)

    def infer_all(self, unaries: Iterable[np.ndarray], iterations: int) -> Iterator[np.ndarray]:
        """The posterior of each of several energies."""
        return (self.infer(unary, iterations) for unary in unaries)


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


def label_unary(labels: np.ndarray, num_labels: int, gt_prob: float) -> np.ndarray:
    """Energy of a hard label map (IRN): the label holds with gt_prob, the rest share 1 - gt_prob.

    Args:
        labels: (H, W) integers in 0..L-1.

    Returns:
        (L, H, W) float32.
    """
    unary = unary_from_labels(
        labels.astype(np.int32), num_labels, gt_prob=gt_prob, zero_unsure=False
    )
    return unary.reshape(num_labels, *labels.shape)


def softmax_unary(activation: np.ndarray, background: np.ndarray) -> np.ndarray:
    """Energy -log of [background, A_1..A_P] (PSA, OC-CSE), normalised to sum to 1 per pixel.

    Args:
        activation: (P, H, W) float32 in [0, 1].
        background: (H, W) float32 in [0, 1].

    Returns:
        (P + 1, H, W) float32, label 0 being background.
    """
    scores = np.concatenate([background[None], activation]).astype(np.float32)
    scores = np.maximum(scores, 1e-5)
    return unary_from_softmax(scores / scores.sum(axis=0)).reshape(scores.shape)


def power_background(activation: np.ndarray, alpha: float) -> np.ndarray:
    """Background score (1 - max A)^alpha, (H, W)."""
    return (1 - activation.max(axis=0)) ** np.float32(alpha)
