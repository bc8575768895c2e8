"""From stored activations to refined label maps and pseudo labels with an ignore band."""

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
    """The chosen threshold, and the pair around it that bounds the ignore band.

    In the label and constant forms these are background thresholds. In the power form they are
    alphas.

    Attributes:
        background: what is background at this value is surely background; it calls more pixels
            object than `chosen`.
        foreground: what is object at this value is surely object; it calls fewer pixels object.
    """

    background: float
    chosen: float
    foreground: float


@dataclass(frozen=True, kw_only=True)
class Refinement:
    """How activations become pseudo labels.

    Attributes:
        form: "label" (IRN), "constant" (softmax form, constant background) or "power" (softmax
            form, background (1 - max A)^alpha).
        gt_prob: confidence of the hard labels, label form only.
        iterations: mean-field iterations; 0 leaves the seed unrefined.
        cam_power: exponent of maps and thresholds.
        backend, device: what does the CRF's arithmetic, and where (see `make_crf`).
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
        chosen: form, iterations, gaussian_compat and bilateral_compat, as far as they are chosen;
            a setting whose use depends on one that is missing counts as used.
    """
    form, is_refined = chosen.get("form"), chosen.get("iterations") != 0
    if setting == "gt_prob":
        return form in ("label", None) and is_refined
    if setting == "cam_power":
        # Without mean field the constant form compares maps and threshold: powers keep the order.
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
    """Refined labels and pseudo labels of one image.

    The CRF runs on background and the P present labels, three times on one lattice: at the chosen
    threshold and at each of the pair. The pseudo label is object where the result at `foreground`
    is, background where the result at `background` is, and 255 elsewhere (IRN's confident labels).

    Args:
        image: (H, W, 3) uint8 RGB.
        activation: (P, H, W) float32 in [0, 1].
        class_indices: (P,) class indices in 1..C.

    Returns:
        refined (H, W) uint8 and pseudo_label (H, W) uint8 with `IGNORE_INDEX`.
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
    """Objects of the first, background of both, `IGNORE_INDEX` elsewhere; (H, W) uint8."""
    certain_background = np.where(background == 0, 0, IGNORE_INDEX)
    return np.where(foreground != 0, foreground, certain_background).astype(np.uint8)


def refined_positions(
    image: np.ndarray,
    activation: np.ndarray,
    values: tuple[float, ...],
    refinement: Refinement,
) -> list[np.ndarray]:
    """(H, W) label positions (0 background, p for the p-th present class) for each value.

    Equal values share one inference, and all share one lattice and the passes over it.

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
    posteriors = crf.infer_all((energy(value) for value in distinct), refinement.iterations)
    results = {
        value: posterior.argmax(axis=0)
        for value, posterior in zip(distinct, posteriors, strict=True)
    }
    return [results[value] for value in values]


def unary(activation: np.ndarray, value: float, refinement: Refinement) -> np.ndarray:
    """(P + 1, H, W) energy of background and the present classes at a threshold or alpha."""
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
    """Label positions to class indices, uint8."""
    return np.concatenate([[0], np.asarray(class_indices)]).astype(np.uint8)[positions]
