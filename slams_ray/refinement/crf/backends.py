"""Which program computes the CRF."""

from typing import Literal, get_args

import numpy as np

from slams_ray.refinement.crf.kernels import Crf, CrfKernels

Backend = Literal["pydensecrf", "numba", "torch"]


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
        from slams_ray.refinement.crf.reference import ReferenceCrf

        return ReferenceCrf(image, num_labels, kernels)
    # numba takes half a second to import, torch three.
    if backend == "numba":
        from slams_ray.refinement.crf.mean_field import LatticeCrf

        return LatticeCrf(image, num_labels, kernels)
    if backend == "torch":
        from slams_ray.refinement.crf.mean_field_torch import TorchCrf

        return TorchCrf(image, num_labels, kernels, device)
    raise ValueError(f"CRF backend is {backend!r}, expected one of {', '.join(get_args(Backend))}")
