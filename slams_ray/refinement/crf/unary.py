"""Energies that the CRF starts from, made from hard labels or from scores."""

import numpy as np

SMALLEST_SCORE = 1e-5


def label_unary(labels: np.ndarray, num_labels: int, gt_prob: float) -> np.ndarray:
    """Returns the energy of a hard label map (IRN).

    The label has probability gt_prob, and the other labels share 1 - gt_prob.

    Args:
        labels: (H, W) integers in 0..L-1.

    Returns:
        (L, H, W) float32.
    """
    other = -np.log((1.0 - gt_prob) / (num_labels - 1))
    unary = np.full((num_labels, labels.size), other, np.float32)
    unary[labels.ravel(), np.arange(labels.size)] = -np.log(gt_prob)
    return unary.reshape(num_labels, *labels.shape)


def softmax_unary(activation: np.ndarray, background: np.ndarray) -> np.ndarray:
    """Returns the energy of scores (PSA, OC-CSE): -log of [background, A_1..A_P] over their sum.

    Args:
        activation: (P, H, W) float32 in [0, 1].
        background: (H, W) float32 in [0, 1].

    Returns:
        (P + 1, H, W) float32; label 0 is background.
    """
    scores = np.concatenate([background[None], activation]).astype(np.float32)
    scores = np.maximum(scores, SMALLEST_SCORE)
    return -np.log((scores / scores.sum(axis=0)).clip(SMALLEST_SCORE, 1))


def power_background(activation: np.ndarray, alpha: float) -> np.ndarray:
    """Returns the background score (1 - max A)^alpha, (H, W)."""
    return (1 - activation.max(axis=0)) ** np.float32(alpha)
