"""Choice of the CRF implementation."""

from typing import Literal, get_args

import numpy as np

from slams_ray.errors import ConfigError, how_to_install
from slams_ray.refinement.crf.kernels import Crf, CrfKernels

Backend = Literal["pydensecrf", "numba", "torch"]


def make_crf(
    backend: Backend,
    image: np.ndarray,
    num_labels: int,
    kernels: CrfKernels,
    device: str = "cpu",
) -> Crf:
    """Builds the CRF of an (H, W, 3) uint8 image, with its lattices.

    Args:
        device: torch device of the torch backend. The other backends use the CPU.

    Raises:
        ConfigError: the backend is not installed.
        ValueError: there is no such backend.
    """
    if backend == "pydensecrf":
        try:
            from slams_ray.refinement.crf.reference import ReferenceCrf
        except ModuleNotFoundError as error:
            raise ConfigError(
                "crf.backend is pydensecrf, which is not installed and needs a C++ compiler: "
                f"{how_to_install('reference')}, or take crf.backend numba"
            ) from error

        return ReferenceCrf(image, num_labels, kernels)
    # Imported where it is used: numba takes half a second to import, torch three seconds.
    if backend == "numba":
        from slams_ray.refinement.crf.mean_field import LatticeCrf

        return LatticeCrf(image, num_labels, kernels)
    if backend == "torch":
        from slams_ray.refinement.crf.mean_field_torch import TorchCrf

        return TorchCrf(image, num_labels, kernels, device)
    raise ValueError(f"CRF backend is {backend!r}, expected one of {', '.join(get_args(Backend))}")
