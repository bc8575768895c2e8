"""pydensecrf, the reference that the other implementations are compared with."""

from collections.abc import Iterable, Iterator

import numpy as np
import pydensecrf.densecrf as densecrf

from slams_ray.refinement.crf.kernels import (
    Crf,
    CrfKernels,
    check_image,
    check_num_labels,
    check_unary,
)


class ReferenceCrf(Crf):
    """pydensecrf's mean-field inference on one image, whose lattices are built once.

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

    def infer_all(self, unaries: Iterable[np.ndarray], iterations: int) -> Iterator[np.ndarray]:
        """Yields the posteriors of several energies, one at a time."""
        for unary in unaries:
            check_unary(unary, self._shape)
            flat = np.ascontiguousarray(unary.reshape(self._shape[0], -1), dtype=np.float32)
            self._crf.setUnaryEnergy(flat)
            found = np.array(self._crf.inference(iterations), dtype=np.float32)
            yield found.reshape(self._shape)
