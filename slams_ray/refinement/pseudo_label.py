"""From stored activations to refined label maps and pseudo labels with an ignore band."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from slams_ray.metrics import IGNORE_INDEX
from slams_ray.refinement.crf.backends import Backend, make_crf
from slams_ray.refinement.crf.kernels import CrfKernels
from slams_ray.refinement.crf.unary import label_unary, power_background, softmax_unary
from slams_ray.seeds.seed import seed_labels, threshold_of


@dataclass(frozen=True, kw_only=True)
class Confidence:
    """One quantity at three strengths: surely object, most likely, surely background.

    In the label form and the softmax form with a constant these are background thresholds, in the
    softmax form with a power they are alphas. `lenient` calls more pixels object than `chosen`,
    `strict` fewer.
    """

    lenient: float
    chosen: float
    strict: float


@dataclass(frozen=True, kw_only=True)
class Refinement:
    """How activations become pseudo labels.

    Attributes:
        form: "label" (IRN), "constant" (softmax form, constant background) or "power" (softmax
            form, background (1 - max A)^alpha).
        gt_prob: confidence of the hard labels, label form only.
        iterations: mean-field iterations; 0 leaves the seed unrefined.
        cam_power: exponent of maps and thresholds.
        class_offsets: (K,) what is added to a background threshold for each class; empty adds
            nothing. Alphas stay as they are.
        backend, device: what does the CRF's arithmetic, and where (see `make_crf`).
    """

    form: str
    gt_prob: float
    iterations: int
    kernels: CrfKernels
    cam_power: float = 1.0
    class_offsets: tuple[float, ...] = ()
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
    confidence: Confidence,
    refinement: Refinement,
) -> tuple[np.ndarray, np.ndarray]:
    """Refined labels and pseudo labels of one image.

    The CRF runs on background and the P present labels, three times on one lattice: at the strict,
    chosen and lenient strength. The pseudo label is object where the strict result is, background
    where the lenient result is, and 255 between (IRN's confident pair, method section 6).

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
    strict, chosen, lenient = (
        labels_of_present(labels, class_indices)
        for labels in refined_positions(
            image,
            activation,
            class_indices,
            (confidence.strict, confidence.chosen, confidence.lenient),
            refinement,
        )
    )
    return chosen, agreed_labels(strict, lenient)


def agreed_labels(strict: np.ndarray, lenient: np.ndarray) -> np.ndarray:
    """Objects of the strict result, background of both, `IGNORE_INDEX` elsewhere; (H, W) uint8."""
    return np.where(strict != 0, strict, np.where(lenient == 0, 0, IGNORE_INDEX)).astype(np.uint8)


def refined_positions(
    image: np.ndarray,
    activation: np.ndarray,
    class_indices: np.ndarray,
    strengths: tuple[float, ...],
    refinement: Refinement,
) -> list[np.ndarray]:
    """(H, W) label positions (0 background, p for the p-th present class) for each strength.

    Equal strengths share one inference, and all share one lattice and passes over it.
    """
    num_labels = len(activation) + 1

    def energy(strength: float) -> np.ndarray:
        return unary(activation, class_indices, strength, refinement)

    if refinement.iterations == 0:
        return [energy(value).argmin(axis=0) for value in strengths]
    crf = make_crf(refinement.backend, image, num_labels, refinement.kernels, refinement.device)
    distinct = list(dict.fromkeys(strengths))
    posteriors = crf.infer_all((energy(value) for value in distinct), refinement.iterations)
    results = {
        value: posterior.argmax(axis=0)
        for value, posterior in zip(distinct, posteriors, strict=True)
    }
    return [results[value] for value in strengths]


def unary(
    activation: np.ndarray, class_indices: np.ndarray, strength: float, refinement: Refinement
) -> np.ndarray:
    """(P + 1, H, W) energy of background and the present classes at one strength."""
    thresholds = class_thresholds(strength, class_indices, refinement.class_offsets)
    if refinement.form == "label":
        positions = seed_labels(activation, np.arange(1, len(activation) + 1), thresholds)
        return label_unary(positions, len(activation) + 1, refinement.gt_prob)
    power = np.float32(refinement.cam_power)
    powered = activation if power == 1 else activation**power
    if refinement.form == "constant":
        background = threshold_of(activation.argmax(axis=0), thresholds) ** power
        return softmax_unary(powered, np.broadcast_to(background, activation.shape[1:]))
    return softmax_unary(powered, power_background(powered, strength))


def class_thresholds(
    strength: float, class_indices: np.ndarray, offsets: tuple[float, ...]
) -> np.ndarray:
    """() or (P,) float32 background threshold of each present class."""
    if not offsets:
        return np.asarray(strength, np.float32)
    return np.clip(strength + np.asarray(offsets)[class_indices], 0, 1).astype(np.float32)


def labels_of_present(positions: np.ndarray, class_indices: np.ndarray) -> np.ndarray:
    """Label positions to class indices, uint8."""
    return np.concatenate([[0], np.asarray(class_indices)]).astype(np.uint8)[positions]
