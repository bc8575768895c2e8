"""The CRF of test time."""

import numpy as np

from slams_ray.config import PredictionCrfConfig
from slams_ray.refinement.crf.kernels import CrfKernels
from slams_ray.refinement.crf.probabilities import ProbabilityCrf
from slams_ray.refinement.crf.reference import ReferenceCrf

PUBLISHED = PredictionCrfConfig(iterations=10)
KERNELS = CrfKernels(
    gaussian_sxy_px=PUBLISHED.gaussian_sxy_px,
    gaussian_compat=PUBLISHED.gaussian_compat,
    bilateral_sxy_px=PUBLISHED.bilateral_sxy_px,
    bilateral_srgb=PUBLISHED.bilateral_srgb,
    bilateral_compat=PUBLISHED.bilateral_compat,
)


def two_halves(num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Image of two colours, and probabilities whose border is off, without much certainty."""
    rng = np.random.default_rng(0)
    image = np.full((40, 60, 3), 60, np.uint8)
    image[:, 30:] = 190
    probabilities = rng.uniform(0, 0.2, (num_classes, 40, 60)).astype(np.float32)
    probabilities[0, :, :36] += 1
    probabilities[num_classes - 1, :, 36:] += 1
    probabilities[num_classes - 1, :, 30:36] += 0.7
    return image, probabilities / probabilities.sum(axis=0)


def test_labels_are_those_of_pydensecrf_on_minus_log_of_the_probabilities() -> None:
    image, probabilities = two_halves(21)
    energy = -np.log(probabilities.clip(1e-5, 1)).astype(np.float32)
    posterior = ReferenceCrf(image, 21, KERNELS).infer(energy, 10)
    found = ProbabilityCrf(kernels=KERNELS, iterations=10)(image, probabilities)
    assert found.dtype == np.uint8
    assert (found == posterior.argmax(axis=0)).mean() > 0.999


def test_a_border_moves_to_the_edge_of_the_image() -> None:
    image, probabilities = two_halves(3)
    found = ProbabilityCrf(kernels=KERNELS, iterations=10)(image, probabilities)
    assert (probabilities.argmax(axis=0)[:, 30:36] == 0).all()
    assert (found[:, :30] == 0).all()
    assert (found[:, 30:] == 2).all()


def test_a_probability_of_zero_is_no_infinite_energy() -> None:
    image, _ = two_halves(2)
    probabilities = np.zeros((2, 40, 60), np.float32)
    probabilities[1] = 1
    assert (ProbabilityCrf(kernels=KERNELS, iterations=2)(image, probabilities) == 1).all()
