"""From stored activations to label maps: what searching and refining do first, without torch.

Importing torch takes a worker 3 s of CPU time and 400 MB, more than all else it holds.
"""

import numpy as np


def seed_labels(
    activation: np.ndarray, class_indices: np.ndarray, background_threshold: float | np.ndarray
) -> np.ndarray:
    """Seed: argmax over [background_threshold, A_1..A_P]; background wins ties.

    Args:
        activation: (P, H, W) float32 in [0, 1].
        class_indices: (P,) class index of each map.
        background_threshold: one for all, or (P,): a pixel is held against that of its winner.

    Returns:
        (H, W) uint8 class indices.
    """
    if not len(class_indices):
        return np.zeros(activation.shape[1:], np.uint8)
    winner = activation.argmax(axis=0)
    is_object = activation.max(axis=0) > threshold_of(winner, background_threshold)
    return np.where(is_object, np.asarray(class_indices)[winner], 0).astype(np.uint8)


def threshold_of(winner: np.ndarray, background_threshold: float | np.ndarray) -> np.ndarray:
    """float32 threshold of each pixel: the one there is, or that of its winning map."""
    thresholds = np.asarray(background_threshold, np.float32)
    return thresholds[winner] if thresholds.ndim else thresholds
