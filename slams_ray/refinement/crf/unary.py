"""Energies from hard labels or from scores: what the CRF starts from."""

import numpy as np

SMALLEST_SCORE = 1e-5


def label_unary(labels: np.ndarray, num_labels: int, gt_prob: float) -> np.ndarray:
    """Energy of a hard label map (IRN): the label holds with gt_prob, the rest share 1 - gt_prob.

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
    """Energy -log of [background, A_1..A_P] (PSA, OC-CSE), normalised to sum to 1 per pixel.

    Args:
        activation: (P, H, W) float32 in [0, 1].
        background: (H, W) float32 in [0, 1].

    Returns:
        (P + 1, H, W) float32, label 0 being background.
    """
    scores = np.concatenate([background[None], activation]).astype(np.float32)
    scores = np.maximum(scores, SMALLEST_SCORE)
    return -np.log((scores / scores.sum(axis=0)).clip(SMALLEST_SCORE, 1))


def power_background(activation: np.ndarray, alpha: float) -> np.ndarray:
    """Background score (1 - max A)^alpha, (H, W)."""
    return (1 - activation.max(axis=0)) ** np.float32(alpha)
