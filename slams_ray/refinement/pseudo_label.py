"""Refined label maps and pseudo labels (docs/method.md, Dense CRF and pseudo labels)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from slams_ray.metrics import IGNORE_INDEX
from slams_ray.refinement.crf.backends import Backend, make_crf
from slams_ray.refinement.crf.kernels import CrfKernels
from slams_ray.refinement.crf.unary import label_unary, power_background, softmax_unary
from slams_ray.seeds.seed import seed_labels


@dataclass(frozen=True, kw_only=True)
class ConfidentPair:
    """The chosen threshold and the confident pair around it.

    The values are background thresholds, or alphas in the power form. Pixels on which the pair
    disagrees are ignored in the pseudo label.

    Attributes:
        background: value that labels more pixels as object than `chosen`. Its background is
            confident.
        foreground: value that labels fewer pixels as object than `chosen`. Its objects are
            confident.
    """

    background: float
    chosen: float
    foreground: float


@dataclass(frozen=True, kw_only=True)
class Refinement:
    """Settings that turn activations into pseudo labels.

    Attributes:
        form: "label" (hard seeds, IRN), "constant" (scores and a constant background) or "power"
            (scores and background (1 - max A)^alpha).
        gt_prob: confidence of the seed, in the label form only.
        iterations: mean-field iterations; 0 leaves the seed unrefined.
        cam_power: exponent of maps and thresholds, in the constant and power forms.
        backend, device: implementation of the CRF, and its device (see `make_crf`).
    """

    form: str
    gt_prob: float
    iterations: int
    kernels: CrfKernels
    cam_power: float = 1.0
    backend: Backend = "numba"
    device: str = "cpu"


def has_effect(setting: str, chosen: Mapping[str, Any]) -> bool:
    """Whether a setting can change labels, given the settings chosen before it.

    Args:
        setting: name of a field of `Refinement` or `CrfKernels`.
        chosen: form, iterations, gaussian_compat and bilateral_compat, as far as they are known.
            A setting that depends on an unknown one counts as having an effect.
    """
    form, is_refined = chosen.get("form"), chosen.get("iterations") != 0
    if setting == "gt_prob":
        return form in ("label", None) and is_refined
    if setting == "cam_power":
        # Without mean field, the constant form only compares maps and threshold, and a power keeps
        # their order.
        return form in ("power", None) or (form == "constant" and is_refined)
    for kernel in ("gaussian", "bilateral"):
        if setting == f"{kernel}_compat":
            return is_refined
        if setting.startswith(f"{kernel}_"):
            return is_refined and chosen.get(f"{kernel}_compat") != 0
    return True


def refine(
    image: np.ndarray,
    activation: np.ndarray,
    class_indices: np.ndarray,
    pair: ConfidentPair,
    refinement: Refinement,
) -> tuple[np.ndarray, np.ndarray]:
    """Computes the refined labels and the pseudo labels of one image.

    The CRF runs on background and the P present classes, at the chosen value and at both values of
    the confident pair. The pseudo label is object where the result at `foreground` is object,
    background where both results of the pair are background, and 255 elsewhere (IRN).

    Args:
        image: (H, W, 3) uint8 RGB.
        activation: (P, H, W) float32 in [0, 1].
        class_indices: (P,) class indices in 1..C.

    Returns:
        refined (H, W) uint8, and pseudo_label (H, W) uint8 with `IGNORE_INDEX` where it is ignored.
    """
    shape = image.shape[:2]
    if not len(class_indices):
        return np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
    values = (pair.foreground, pair.chosen, pair.background)
    foreground, chosen, background = (
        labels_of_present(positions, class_indices)
        for positions in refined_positions(image, activation, values, refinement)
    )
    return chosen, agreed_labels(foreground, background)


def agreed_labels(foreground: np.ndarray, background: np.ndarray) -> np.ndarray:
    """Returns objects of the first map, background of both, and 255 elsewhere; (H, W) uint8."""
    certain_background = np.where(background == 0, 0, IGNORE_INDEX)
    return np.where(foreground != 0, foreground, certain_background).astype(np.uint8)


def refined_positions(
    image: np.ndarray,
    activation: np.ndarray,
    values: tuple[float, ...],
    refinement: Refinement,
) -> list[np.ndarray]:
    """Returns (H, W) label positions for each value: 0 background, p the p-th present class.

    All values share one lattice and the passes over it. Equal values share one inference.

    Args:
        values: background thresholds, or alphas in the power form.
    """

    def energy(value: float) -> np.ndarray:
        return unary(activation, value, refinement)

    if refinement.iterations == 0:
        return [energy(value).argmin(axis=0) for value in values]
    num_labels = len(activation) + 1
    crf = make_crf(refinement.backend, image, num_labels, refinement.kernels, refinement.device)
    distinct = list(dict.fromkeys(values))
    labels = crf.label_all((energy(value) for value in distinct), refinement.iterations)
    results = dict(zip(distinct, labels, strict=True))
    return [results[value] for value in values]


def unary(activation: np.ndarray, value: float, refinement: Refinement) -> np.ndarray:
    """Returns the (P + 1, H, W) energy of background and present classes at a value."""
    if refinement.form == "label":
        positions = seed_labels(activation, np.arange(1, len(activation) + 1), value)
        return label_unary(positions, len(activation) + 1, refinement.gt_prob)
    power = np.float32(refinement.cam_power)
    powered = activation if power == 1 else activation**power
    if refinement.form == "constant":
        background = np.full(activation.shape[1:], np.float32(value) ** power)
        return softmax_unary(powered, background)
    return softmax_unary(powered, power_background(powered, value))


def labels_of_present(positions: np.ndarray, class_indices: np.ndarray) -> np.ndarray:
    """Turns label positions into class indices, uint8."""
    return np.concatenate([[0], np.asarray(class_indices)]).astype(np.uint8)[positions]
