"""Pixels as points of permutohedral lattices: what `lattice` and `lattice_torch` share."""

import numpy as np

from slams_ray.errors import ConfigError
from slams_ray.refinement.crf.kernels import CrfKernels

MAX_KEY = 2**62
_FIELDS = {2: "crf.gaussian_sxy_px", 5: "crf.bilateral_sxy_px or crf.bilateral_srgb"}
"""Axes of a kernel -> the settings that are its standard deviations."""


def kernel_points(image: np.ndarray, kernels: CrfKernels) -> list[tuple[np.ndarray, float]]:
    """(d, N) float32 features of the pixels, in standard deviations, and compatibility, of the
    Gaussian kernel (d = 2) and of the bilateral one (d = 5).

    Args:
        image: (H, W, 3) uint8 RGB.
    """
    position = np.indices(image.shape[:2], np.float32)[::-1]
    colour = image.transpose(2, 0, 1) / np.float32(kernels.bilateral_srgb)
    gaussian = position / np.float32(kernels.gaussian_sxy_px)
    bilateral = np.concatenate([position / np.float32(kernels.bilateral_sxy_px), colour])
    return [
        (gaussian.reshape(len(gaussian), -1), kernels.gaussian_compat),
        (bilateral.reshape(len(bilateral), -1), kernels.bilateral_compat),
    ]


def relative_energy(unary: np.ndarray) -> np.ndarray:
    """(L - 1, N) float32, energy of label 0 less that of the others, of (L, H, W) energies."""
    flat = unary.reshape(len(unary), -1)
    return np.asarray(flat[0] - flat[1:], np.float32)


def axis_scale(num_dims: int) -> np.ndarray:
    """(d,) float32 that bring the blur's standard deviation to 1 (Adams et al., section 3)."""
    index = np.arange(1, num_dims + 1)
    scale = (num_dims + 1) * np.sqrt(2 / 3) / np.sqrt(index * (index + 1))
    return scale.astype(np.float32)


def key_strides(extent: np.ndarray) -> np.ndarray:
    """(d,) int64 that turn the coordinates of a vertex into one integer of its own.

    Args:
        extent: (d,) how far the scaled points reach along each axis.

    Raises:
        ConfigError: there are more vertices than integers.
    """
    num_dims = len(extent)
    extent = extent.astype(float)
    strides = [1]
    for j in range(num_dims):
        # How far coordinate j reaches over the points; rounding to a vertex and stepping to its
        # neighbour add less than 2 (d + 1) at either end.
        reach = extent[j:].sum() + (j * extent[j - 1] if j else 0)
        strides.append(strides[-1] * (int(reach) + 4 * (num_dims + 1)))
    if strides[-1] > MAX_KEY:
        reaches = ", ".join(f"{value:.0f}" for value in extent)
        fields = _FIELDS.get(num_dims, "the standard deviations of the kernel")
        raise ConfigError(
            f"the pixels of an image reach {reaches} lattice units along the axes of a CRF kernel, "
            f"too many to number its vertices by 62 bits: raise {fields}"
        )
    return np.array(strides[:-1], np.int64)


def key_steps(strides: np.ndarray) -> np.ndarray:
    """(d + 1,) int64, from the key of a vertex to its neighbour's in each direction."""
    return strides.sum() - (len(strides) + 1) * np.append(strides, 0)
