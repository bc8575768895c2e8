"""Pixels as points of permutohedral lattices, shared by `lattice` and `lattice_torch`."""

import numpy as np

from slams_ray.errors import ConfigError
from slams_ray.refinement.crf.kernels import CrfKernels

MAX_KEY = 2**62
_FIELDS = {2: "crf.gaussian_sxy_px", 5: "crf.bilateral_sxy_px or crf.bilateral_srgb"}
"""Number of axes of a kernel -> settings of its standard deviations."""


def kernel_points(image: np.ndarray, kernels: CrfKernels) -> list[tuple[np.ndarray, float]]:
    """Returns features and compatibility of the Gaussian (d = 2) and bilateral (d = 5) kernels.

    Features are (d, N) float32, one column per pixel, in standard deviations of the kernel.

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
    """Returns (L - 1, N) float32: energy of label 0 minus energy of each other label."""
    flat = unary.reshape(len(unary), -1)
    return np.asarray(flat[0] - flat[1:], np.float32)


def axis_scale(num_dims: int) -> np.ndarray:
    """Returns (d,) float32 scales that make the blur's standard deviation 1 (Adams et al. 2010)."""
    index = np.arange(1, num_dims + 1)
    scale = (num_dims + 1) * np.sqrt(2 / 3) / np.sqrt(index * (index + 1))
    return scale.astype(np.float32)


def key_strides(extent: np.ndarray) -> np.ndarray:
    """Returns (d,) int64 strides that turn the coordinates of a vertex into a unique integer.

    Args:
        extent: (d,) extent of the scaled points along each axis.

    Raises:
        ConfigError: the vertices do not fit into 62 bits.
    """
    num_dims = len(extent)
    extent = extent.astype(float)
    strides = [1]
    for j in range(num_dims):
        # Extent of coordinate j over the points. Rounding to a vertex and stepping to its
        # neighbour add less than 2 (d + 1) at either end.
        reach = extent[j:].sum() + (j * extent[j - 1] if j else 0)
        strides.append(strides[-1] * (int(reach) + 4 * (num_dims + 1)))
    if strides[-1] > MAX_KEY:
        reaches = ", ".join(f"{value:.0f}" for value in extent)
        fields = _FIELDS.get(num_dims, "the standard deviations of the kernel")
        raise ConfigError(
            f"the pixels of an image extend over {reaches} lattice units along the axes of a CRF "
            f"kernel, too many to number the vertices with 62 bits: raise {fields}"
        )
    return np.array(strides[:-1], np.int64)


def key_steps(strides: np.ndarray) -> np.ndarray:
    """Returns (d + 1,) int64 steps from the key of a vertex to its neighbour in each direction."""
    return strides.sum() - (len(strides) + 1) * np.append(strides, 0)
