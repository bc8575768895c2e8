from collections.abc import Mapping
from dataclasses import fields, replace
from itertools import pairwise
from typing import Any, get_args

import numpy as np
import pytest

from slams_ray.metrics import IGNORE_INDEX
from slams_ray.refinement.crf.backends import Backend
from slams_ray.refinement.crf.kernels import CrfKernels
from slams_ray.refinement.pseudo_label import (
    ConfidentPair,
    Refinement,
    has_effect,
    refine,
    refined_positions,
)
from slams_ray.seeds.seed import seed_labels

FORMS = ("label", "constant", "power")
CLASSES = np.array([3, 7])


def refinement(form: str = "label", iterations: int = 0) -> Refinement:
    kernels = CrfKernels(
        gaussian_sxy_px=3,
        gaussian_compat=3,
        bilateral_sxy_px=20,
        bilateral_srgb=10,
        bilateral_compat=5,
    )
    return Refinement(form=form, gt_prob=0.7, iterations=iterations, kernels=kernels)


def confidence(form: str) -> ConfidentPair:
    if form == "power":
        return ConfidentPair(background=6.0, chosen=3.0, foreground=1.0)
    return ConfidentPair(background=0.3, chosen=0.5, foreground=0.7)


def same(value: float) -> ConfidentPair:
    return ConfidentPair(background=value, chosen=value, foreground=value)


def random_input(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (12, 16, 3)).astype(np.uint8)
    return image, rng.random((2, 12, 16)).astype(np.float32)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("iterations", [0, 2])
def test_a_pseudo_label_never_names_an_absent_class(form: str, iterations: int) -> None:
    refined, pseudo_label = refine(
        *random_input(0), CLASSES, confidence(form), refinement(form, iterations)
    )
    assert refined.dtype == pseudo_label.dtype == np.uint8
    assert refined.shape == pseudo_label.shape == (12, 16)
    assert set(np.unique(refined)) <= {0, 3, 7}
    assert set(np.unique(pseudo_label)) <= {0, 3, 7, IGNORE_INDEX}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("iterations", [0, 2])
def test_equal_strengths_leave_no_ignore_band(form: str, iterations: int) -> None:
    value = confidence(form).chosen
    refined, pseudo_label = refine(
        *random_input(1), CLASSES, same(value), refinement(form, iterations)
    )
    np.testing.assert_array_equal(pseudo_label, refined)


def test_the_ignore_band_grows_with_the_margins() -> None:
    image, maps = random_input(2)
    ignored = []
    for margin in (0.0, 0.1, 0.2, 0.4):
        pair = ConfidentPair(background=0.5 - margin, chosen=0.5, foreground=0.5 + margin)
        _, pseudo_label = refine(image, maps, CLASSES, pair, refinement())
        ignored.append(pseudo_label == IGNORE_INDEX)
    for smaller, larger in pairwise(ignored):
        assert not (smaller & ~larger).any()
        assert larger.sum() > smaller.sum()


def test_the_pseudo_label_is_object_above_strict_background_below_lenient_and_255_between() -> None:
    image = np.zeros((1, 4, 3), np.uint8)
    maps = np.array([[[0.9, 0.6, 0.4, 0.1]], [[0.0, 0.0, 0.0, 0.05]]], np.float32)
    refined, pseudo_label = refine(image, maps, CLASSES, confidence("label"), refinement())
    assert refined.tolist() == [[3, 3, 0, 0]]
    assert pseudo_label.tolist() == [[3, IGNORE_INDEX, IGNORE_INDEX, 0]]


@pytest.mark.parametrize("form", FORMS)
def test_an_image_without_labels_is_all_background(form: str) -> None:
    image, maps = random_input(3)
    refined, pseudo_label = refine(
        image, maps[:0], np.array([], np.int64), confidence(form), refinement(form, 2)
    )
    assert refined.shape == pseudo_label.shape == (12, 16)
    assert not refined.any()
    assert not pseudo_label.any()


@pytest.mark.parametrize("form", ["label", "constant"])
def test_without_iterations_the_refined_labels_are_the_seed(form: str) -> None:
    image, maps = random_input(4)
    refined, _ = refine(image, maps, CLASSES, confidence(form), refinement(form))
    np.testing.assert_array_equal(refined, seed_labels(maps, CLASSES, 0.5))


def test_a_larger_alpha_never_removes_foreground() -> None:
    image, maps = random_input(5)
    foregrounds = [
        refine(image, maps, CLASSES, same(alpha), refinement("power"))[0] > 0
        for alpha in (1.0, 2.0, 4.0, 8.0)
    ]
    for smaller, larger in pairwise(foregrounds):
        assert not (smaller & ~larger).any()
        assert larger.sum() > smaller.sum()


@pytest.mark.parametrize("backend", get_args(Backend))
def test_refinement_fills_a_hole_in_an_object_of_one_colour(backend: Backend) -> None:
    truth = np.zeros((20, 24), np.uint8)
    truth[5:15, 6:18] = 7
    image = np.where(truth[..., None] == 7, [220, 30, 30], [20, 120, 60]).astype(np.uint8)
    maps = np.stack([np.zeros(truth.shape), np.where(truth == 7, 0.9, 0.1)]).astype(np.float32)
    maps[1, 9:11, 11:13] = 0.1
    settings = replace(refinement("label", 10), backend=backend)
    refined, pseudo_label = refine(image, maps, CLASSES, confidence("label"), settings)
    np.testing.assert_array_equal(refined, truth)
    np.testing.assert_array_equal(pseudo_label, truth)


SETTINGS = {
    "iterations": (0, 2),
    "gt_prob": (0.51, 0.9),
    "cam_power": (0.5, 2.0),
    "gaussian_compat": (0.0, 3.0),
    "gaussian_sxy_px": (0.5, 8.0),
    "bilateral_compat": (0.0, 10.0),
    "bilateral_sxy_px": (4.0, 20.0),
    "bilateral_srgb": (3.0, 30.0),
}


def refined_by(point: Mapping[str, Any]) -> np.ndarray:
    """Labels of a noisy image at three thresholds or alphas; what a point leaves out is 1."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 40, (24, 24, 3)).astype(np.uint8)
    activation = rng.random((2, 24, 24)).astype(np.float32)
    names = [field.name for field in fields(CrfKernels)]
    refinement = Refinement(
        form=point["form"],
        gt_prob=point.get("gt_prob", 0.7),
        iterations=point["iterations"],
        cam_power=point.get("cam_power", 1.0),
        kernels=CrfKernels(**{name: point.get(name, 1.0) for name in names}),
        backend="pydensecrf",
    )
    values = (0.3, 0.5, 0.7) if point["form"] != "power" else (1.0, 2.0, 3.0)
    return np.stack(refined_positions(image, activation, values, refinement))


@pytest.mark.parametrize("form", ["label", "constant", "power"])
@pytest.mark.parametrize("iterations", [0, 2])
@pytest.mark.parametrize("compat", [(0.0, 0.0), (10.0, 1.0)])
def test_settings_without_effect_are_those_that_change_no_label(
    form: str, iterations: int, compat: tuple[float, float]
) -> None:
    chosen: dict[str, Any] = {"form": form, "iterations": iterations}
    chosen["gaussian_compat"], chosen["bilateral_compat"] = compat
    for setting in ("gt_prob", "cam_power", "gaussian_sxy_px", "bilateral_srgb"):
        labels = [refined_by({**chosen, setting: value}) for value in SETTINGS[setting]]
        if not has_effect(setting, chosen):
            np.testing.assert_array_equal(*labels)
        elif iterations and any(compat):
            assert (labels[0] != labels[1]).any()


def test_a_setting_that_waits_for_no_other_counts_as_used() -> None:
    assert all(has_effect(setting, {}) for setting in SETTINGS)
