"""Activation network that keeps the texts it was trained with (CLIMS; docs/method.md, CLIMS)."""

from collections.abc import Sequence
from typing import Any

import torch

from slams_ray.networks.activation_network import ActivationNetwork


class TextNetwork(ActivationNetwork):
    """Activation network whose checkpoint names the texts and their embeddings.

    Args:
        texts: one text for each class in their order, then those of background.
        embedding_dim: length D of an embedding.
        architecture: arguments of `ActivationNetwork`.
    """

    text_table: torch.Tensor

    def __init__(self, *, texts: Sequence[str], embedding_dim: int, **architecture: Any) -> None:
        super().__init__(**architecture)
        self.texts = tuple(texts)
        self.register_buffer("text_table", torch.zeros(len(texts), embedding_dim))
