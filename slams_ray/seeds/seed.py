"""Seeds: label maps made from activations by a background threshold."""

import numpy as np


def seed_labels(
    activation: np.ndarray, class_indices: np.ndarray, background_threshold: float
) -> np.ndarray:
    """Returns the seed: argmax over [background_threshold, A_1..A_P]; background wins ties.

    Args:
        activation: (P, H, W) float32 in [0, 1].
        class_indices: (P,) class index of each map.

    Returns:
        (H, W) uint8 class indices.
    """
    if not len(class_indices):
        return np.zeros(activation.shape[1:], np.uint8)
    is_object = activation.max(axis=0) > np.float32(background_threshold)
    winner = np.asarray(class_indices)[activation.argmax(axis=0)]
    return np.where(is_object, winner, 0).astype(np.uint8)
