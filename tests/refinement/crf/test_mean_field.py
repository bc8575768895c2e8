"""The compiled CRF and that of torch give pydensecrf's posterior."""

import subprocess
import sys
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest

from slams_ray.refinement.crf import mean_field_torch
from slams_ray.refinement.crf.backends import Backend, make_crf
from slams_ray.refinement.crf.kernels import CrfKernels
from slams_ray.refinement.crf.mean_field import LatticeCrf, num_together
from slams_ray.refinement.crf.mean_field_torch import TorchCrf
from slams_ray.refinement.crf.reference import ReferenceCrf
from slams_ray.refinement.crf.unary import label_unary

LABEL_FORM = CrfKernels(
    gaussian_sxy_px=3,
    gaussian_compat=3,
    bilateral_sxy_px=50,
    bilateral_srgb=5,
    bilateral_compat=10,
)
Ours = type[LatticeCrf] | type[TorchCrf]
OURS = pytest.mark.parametrize("ours", [LatticeCrf, TorchCrf])
SOFTMAX_FORM = replace(LABEL_FORM, bilateral_sxy_px=80, bilateral_srgb=13)


def smooth_image(height: int, width: int, seed: int = 0) -> np.ndarray:
    """(H, W, 3) uint8: colour ramps, an edge and a little noise."""
    y, x = np.mgrid[:height, :width]
    ramps = np.stack([4 * x + y, 3 * y + 20, 2 * x + 2 * y], axis=-1) % 200
    ramps[:, width // 2 :] += 40
    noise = np.random.default_rng(seed).normal(0, 4, ramps.shape)
    return (ramps + noise).clip(0, 255).astype(np.uint8)


def noisy_unary(height: int, width: int, num_labels: int) -> np.ndarray:
    """(L, H, W) energy of stripes of labels of which a tenth are wrong."""
    rng = np.random.default_rng(num_labels)
    labels = np.arange(width) * num_labels // width + np.zeros((height, 1), int)
    wrong = rng.integers(0, num_labels, labels.shape)
    return label_unary(np.where(rng.random(labels.shape) < 0.1, wrong, labels), num_labels, 0.7)


@OURS
@pytest.mark.parametrize("kernels", [LABEL_FORM, SOFTMAX_FORM])
@pytest.mark.parametrize("num_labels", [2, 3, 4, 7])
def test_posteriors_and_labels_are_those_of_pydensecrf(
    kernels: CrfKernels, num_labels: int, ours: Ours
) -> None:
    image = smooth_image(45, 61)
    unary = noisy_unary(45, 61, num_labels)
    expected = ReferenceCrf(image, num_labels, kernels).infer(unary, 10)
    found = ours(image, num_labels, kernels).infer(unary, 10)
    assert found.dtype == np.float32
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, atol=1e-3)
    assert (found.argmax(axis=0) == expected.argmax(axis=0)).mean() >= 0.999


@OURS
@pytest.mark.parametrize(
    "image",
    [
        smooth_image(1, 1),
        smooth_image(40, 1),
        smooth_image(1, 40),
        smooth_image(17, 16)[..., :1].repeat(3, axis=2),
        np.full((12, 23, 3), 77, np.uint8),
        np.random.default_rng(3).integers(0, 256, (19, 31, 3)).astype(np.uint8),
    ],
    ids=["one pixel", "one wide", "one high", "grey", "constant", "noise"],
)
def test_images_of_odd_size_and_content(image: np.ndarray, ours: Ours) -> None:
    unary = noisy_unary(image.shape[0], image.shape[1], 3)
    expected = ReferenceCrf(image, 3, LABEL_FORM).infer(unary, 5)
    found = ours(image, 3, LABEL_FORM).infer(unary, 5)
    np.testing.assert_allclose(found, expected, atol=1e-3)


@OURS
def test_no_iteration_gives_the_softmax_of_the_unary(ours: Ours) -> None:
    unary = np.random.default_rng(4).uniform(0, 30, (4, 6, 9))
    found = ours(smooth_image(6, 9), 4, LABEL_FORM).infer(unary, 0)
    expected = np.exp(-unary) / np.exp(-unary).sum(axis=0)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-12)


@OURS
def test_energies_far_apart_stay_finite(ours: Ours) -> None:
    unary = np.random.default_rng(5).choice([0.0, 1e4], (3, 6, 9))
    found = ours(smooth_image(6, 9), 3, LABEL_FORM).infer(unary, 3)
    np.testing.assert_allclose(found.sum(axis=0), 1, rtol=1e-5)


@OURS
def test_one_lattice_serves_many_unaries_and_gives_the_same_again(ours: Ours) -> None:
    image = smooth_image(20, 30)
    unaries = [
        noisy_unary(20, 30, 3) + shift for shift in np.random.default_rng(6).random((3, 3, 1, 1))
    ]
    shared = ours(image, 3, LABEL_FORM)
    for unary in [*unaries, unaries[0]]:
        expected = ours(image, 3, LABEL_FORM).infer(unary, 4)
        np.testing.assert_array_equal(shared.infer(unary, 4), expected)


@OURS
@pytest.mark.parametrize("num_labels", [2, 3, 4, 5, 7])
@pytest.mark.parametrize("num_unaries", [1, 2, 3, 5, 9])
def test_unaries_inferred_together_come_out_as_alone(
    num_labels: int, num_unaries: int, ours: Ours, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Several passes of torch as well.
    monkeypatch.setattr(mean_field_torch, "MAX_CHANNELS", 8)
    crf = ours(smooth_image(17, 21), num_labels, LABEL_FORM)
    unaries = [
        np.roll(noisy_unary(17, 21, num_labels), 3 * number, axis=2) * (1 + number / 4)
        for number in range(num_unaries)
    ]
    together = list(crf.infer_all(unaries, 4))
    labels = list(crf.label_all(unaries, 4))
    assert len(together) == len(labels) == num_unaries
    for posterior, label, unary in zip(together, labels, unaries, strict=True):
        np.testing.assert_array_equal(label, posterior.argmax(axis=0))
        np.testing.assert_allclose(posterior, crf.infer(unary, 4), atol=1e-5)
        np.testing.assert_allclose(posterior.sum(axis=0), 1, atol=1e-5)


@pytest.mark.parametrize(
    ("num_unaries", "num_channels", "together"),
    [(1, 1, 1), (3, 1, 3), (5, 1, 4), (9, 1, 8), (3, 2, 2), (3, 3, 1), (2, 4, 2), (7, 5, 1)],
)
def test_a_pass_takes_what_code_is_compiled_for(
    num_unaries: int, num_channels: int, together: int
) -> None:
    assert num_together(num_unaries, num_channels) == together


@OURS
def test_neither_layout_nor_precision_of_the_input_matters(ours: Ours) -> None:
    image = smooth_image(14, 22)
    unary = noisy_unary(14, 22, 2)
    expected = ours(image, 2, LABEL_FORM).infer(unary, 3)
    wide = np.asfortranarray(np.repeat(image, 2, axis=1))[:, ::2]
    strided = np.asfortranarray(unary.astype(np.float64))
    found = ours(wide, 2, LABEL_FORM).infer(strided, 3)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(unary, noisy_unary(14, 22, 2))


@pytest.mark.parametrize("backend", get_args(Backend))
def test_wrong_input_raises(backend: Backend) -> None:
    image = smooth_image(4, 5)
    for wrong in (image[..., 0], image.astype(float), image[:0], image[..., :2]):
        with pytest.raises(ValueError, match=r"expected uint8 \(H, W, 3\)"):
            make_crf(backend, wrong, 2, LABEL_FORM)
    with pytest.raises(ValueError, match="num_labels is 1"):
        make_crf(backend, image, 1, LABEL_FORM)
    crf = make_crf(backend, image, 2, LABEL_FORM)
    for shape in ((3, 4, 5), (2, 5, 4), (2, 20)):
        with pytest.raises(ValueError, match=r"expected \(2, 4, 5\)"):
            crf.infer(np.zeros(shape, np.float32), 1)


def test_an_unknown_backend_raises() -> None:
    with pytest.raises(ValueError, match="expected one of pydensecrf, numba, torch"):
        make_crf("cuda", smooth_image(4, 5), 2, LABEL_FORM)  # type: ignore[arg-type]


def test_backends_are_imported_only_when_they_compute() -> None:
    code = (
        "import sys, slams_ray.refinement.pseudo_label\n"
        "print({'numba', 'torch', 'pydensecrf'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"
