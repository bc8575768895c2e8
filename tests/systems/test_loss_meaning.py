"""On an encoder that counts masked pixels of each category, the right mask has the least loss."""

import numpy as np
import pytest
import torch

from slams_ray.networks.semantic_encoder import semantic_similarity
from slams_ray.systems.slams import losses

NUM_ALL_CLASSES = 3
OWN = 1


def categories() -> np.ndarray:
    """(12, 12) category of each pixel: an object of class 1, one of class 2, background."""
    result = np.zeros((12, 12), int)
    result[2:6, 2:6] = 1
    result[7:11, 6:10] = 2
    return result


def toy_similarity(mask: np.ndarray) -> torch.Tensor:
    """(1, K) similarity of the masked image: e_k is (kept pixels of category k, a constant)."""
    kept = [mask[categories() == k].sum() for k in range(NUM_ALL_CLASSES)]
    embedding = torch.tensor([[[count, 2.0] for count in kept]])
    return semantic_similarity(embedding, torch.tensor([[1.0, 0.0]] * NUM_ALL_CLASSES))


def total_loss(mask: np.ndarray, form: str) -> float:
    own = torch.arange(NUM_ALL_CLASSES)[None] == OWN
    foreground = losses.category_foreground_loss(toy_similarity(mask), own, ~own, form)
    background = losses.category_background_loss(toy_similarity(1 - mask), own, ~own, form)
    return (foreground + background).item()


def perfect_mask() -> np.ndarray:
    return (categories() == OWN).astype(float)


def wrong_mask(kind: str) -> np.ndarray:
    perfect = perfect_mask()
    half = perfect.copy()
    half[:, :4] = 0
    return {
        "empty": np.zeros_like(perfect),
        "full": np.ones_like(perfect),
        "uniform": np.full_like(perfect, 0.5),
        "half of the object": half,
        "shifted": np.roll(perfect, 2, axis=1),
        "other object": (categories() == 2).astype(float),
        "inverted": 1 - perfect,
    }[kind]


@pytest.mark.parametrize("form", ["cosine", "log"])
@pytest.mark.parametrize(
    "kind",
    ["empty", "full", "uniform", "half of the object", "shifted", "other object", "inverted"],
)
def test_a_wrong_mask_costs_more_than_the_perfect_one(kind: str, form: str) -> None:
    assert total_loss(wrong_mask(kind), form) > total_loss(perfect_mask(), form) + 0.1


def test_the_perfect_mask_costs_almost_nothing() -> None:
    assert total_loss(perfect_mask(), "cosine") < 0.02


def test_the_foreground_loss_alone_does_not_see_the_missing_half_but_the_background_loss_does() -> (
    None
):
    own = torch.arange(NUM_ALL_CLASSES)[None] == OWN
    half = wrong_mask("half of the object")
    foreground = losses.category_foreground_loss(toy_similarity(half), own, ~own)
    background = losses.category_background_loss(toy_similarity(1 - half), own, ~own)
    assert foreground.item() < 0.05
    assert background.item() > 0.4
