import numpy as np
import pytest

from slams_ray.refinement.crf.kernels import CrfKernels
from slams_ray.refinement.crf.reference import ReferenceCrf
from slams_ray.refinement.crf.unary import label_unary, power_background, softmax_unary

KERNELS = CrfKernels(
    gaussian_sxy_px=3,
    gaussian_compat=3,
    bilateral_sxy_px=20,
    bilateral_srgb=10,
    bilateral_compat=10,
)


def two_colour_image() -> tuple[np.ndarray, np.ndarray]:
    """(24, 32, 3) image whose left and right part differ in colour, and the (24, 32) parts."""
    parts = np.zeros((24, 32), int)
    parts[:, 14:] = 1
    return np.array([[200, 40, 40], [40, 60, 220]], np.uint8)[parts], parts


def random_image(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (10, 14, 3)).astype(np.uint8)


@pytest.mark.parametrize("num_labels", [2, 4])
def test_a_constant_unary_is_a_fixed_point(num_labels: int) -> None:
    image = random_image(0)
    unary = np.full((num_labels, 10, 14), -np.log(1 / num_labels), np.float32)
    posterior = ReferenceCrf(image, num_labels, KERNELS).infer(unary, 5)
    np.testing.assert_allclose(posterior, 1 / num_labels, rtol=1e-4)


def test_one_lattice_serves_many_unaries_as_fresh_ones_would() -> None:
    image = random_image(1)
    rng = np.random.default_rng(1)
    unaries = [rng.uniform(0.1, 3, (3, 10, 14)).astype(np.float32) for _ in range(3)]
    shared = ReferenceCrf(image, 3, KERNELS)
    results = [shared.infer(unary, 3) for unary in unaries]
    for unary, found in zip(unaries, results, strict=True):
        np.testing.assert_array_equal(found, ReferenceCrf(image, 3, KERNELS).infer(unary, 3))


def test_the_posterior_is_a_distribution_over_labels() -> None:
    unary = np.random.default_rng(2).uniform(0.1, 3, (3, 10, 14))
    posterior = ReferenceCrf(random_image(2), 3, KERNELS).infer(unary, 3)
    assert posterior.dtype == np.float32
    np.testing.assert_allclose(posterior.sum(axis=0), 1, rtol=1e-4)


def test_refinement_snaps_a_noisy_seed_to_the_edge_of_the_image() -> None:
    image, truth = two_colour_image()
    seed = np.roll(truth, 3, axis=1)
    seed[:, :3] = 0
    noise = np.random.default_rng(3).random(seed.shape) < 0.1
    seed = np.where(noise, 1 - seed, seed)
    posterior = ReferenceCrf(image, 2, KERNELS).infer(label_unary(seed, 2, 0.7), 10)
    wrong_before = (seed != truth).mean()
    wrong_after = (posterior.argmax(axis=0) != truth).mean()
    assert wrong_before > 0.1
    assert wrong_after < 0.01


def test_label_unary_is_the_energy_of_the_labels_confidence() -> None:
    labels = np.array([[0, 1, 2], [2, 1, 0]])
    unary = label_unary(labels, 3, 0.7)
    assert unary.shape == (3, 2, 3)
    for i in range(2):
        for j in range(3):
            for k in range(3):
                probability = 0.7 if labels[i, j] == k else 0.15
                assert unary[k, i, j] == pytest.approx(-np.log(probability), rel=1e-5)


def test_softmax_unary_is_the_energy_of_normalised_scores_with_background_first() -> None:
    rng = np.random.default_rng(4)
    maps = rng.uniform(0.05, 1, (2, 3, 4)).astype(np.float32)
    background = rng.uniform(0.05, 1, (3, 4)).astype(np.float32)
    total = background + maps.sum(axis=0)
    unary = softmax_unary(maps, background)
    np.testing.assert_allclose(unary[0], -np.log(background / total), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(unary[1:], -np.log(maps / total), rtol=1e-4, atol=1e-5)


def test_softmax_unary_of_zero_scores_is_finite() -> None:
    zeros = np.zeros((2, 3, 4), np.float32)
    assert np.isfinite(softmax_unary(zeros, zeros[0])).all()


def test_power_background_is_high_where_every_map_is_low() -> None:
    maps = np.array([[[0.0, 0.5, 1.0]], [[0.0, 0.25, 0.5]]], np.float32)
    np.testing.assert_allclose(power_background(maps, 2.0), [[1.0, 0.25, 0.0]])


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 5, 3), np.float32),
        np.zeros((4, 5), np.uint8),
        np.zeros((4, 5, 4), np.uint8),
        np.zeros((1, 4, 5, 3), np.uint8),
    ],
)
def test_an_image_of_another_dtype_or_shape_raises(image: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"expected uint8 \(H, W, 3\)"):
        ReferenceCrf(image, 2, KERNELS)


def test_a_unary_of_another_shape_raises() -> None:
    crf = ReferenceCrf(random_image(5), 2, KERNELS)
    with pytest.raises(ValueError, match="expected"):
        crf.infer(np.zeros((2, 14, 10), np.float32), 1)


def test_a_non_contiguous_image_and_unary_give_the_result_of_their_copies() -> None:
    image = random_image(6)
    unary = np.random.default_rng(6).uniform(0.1, 3, (10, 14, 2)).transpose(2, 0, 1)
    wide = np.repeat(image, 2, axis=1)[:, ::2]
    found = ReferenceCrf(wide, 2, KERNELS).infer(unary, 2)
    expected = ReferenceCrf(image, 2, KERNELS).infer(np.ascontiguousarray(unary), 2)
    np.testing.assert_array_equal(found, expected)
