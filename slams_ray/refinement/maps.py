"""Refinements that turn the stored maps of an image into better stored maps."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import nn

from slams_ray.data.stored_maps import STORED_LEVELS
from slams_ray.data.transforms import normalise
from slams_ray.networks.edge_network import edge_probability
from slams_ray.refinement.pixel_adaptive import refine_by_colour
from slams_ray.refinement.walk.propagation import Walk, scaled_steps


class MapRefinement(Protocol):
    """Refines the maps of one image."""

    def __call__(self, image: np.ndarray, maps: np.ndarray) -> np.ndarray:
        """(P, h, w) uint8 maps of the same shape.

        Args:
            image: (H, W, 3) uint8 RGB.
            maps: (P, h, w) uint8 at stride 4, P >= 1.
        """
        ...


class WalkRefinement:
    """The random walk over edges that a network finds.

    Args:
        network: an `EdgeNetwork` in eval mode.
        num_steps: as `scaled_steps` takes it.
        erase_edges: see `Walk.propagate`.
    """

    def __init__(
        self,
        network: nn.Module,
        beta: float,
        num_steps: int,
        device: torch.device,
        erase_edges: bool = False,
    ) -> None:
        self.network = network.to(device)
        self.beta = beta
        self.num_steps = num_steps
        self.device = device
        self.erase_edges = erase_edges

    def __call__(self, image: np.ndarray, maps: np.ndarray) -> np.ndarray:
        return self.variants(image, maps, [self.beta], [self.num_steps])[0]

    def variants(
        self,
        image: np.ndarray,
        maps: np.ndarray,
        betas: Sequence[float],
        nums_steps: Sequence[int],
    ) -> list[np.ndarray]:
        """Walks with every beta and every number of steps, betas first.

        The edges are found once, each beta builds one lattice, and all numbers of steps share one
        recurrence.
        """
        edge = self.edges(image)
        size = edge.shape[0], edge.shape[1]
        steps = [scaled_steps(num_steps, size) for num_steps in nums_steps]
        found: list[np.ndarray] = []
        for beta in betas:
            walked = Walk(edge, beta).propagate(maps, steps, erase_edges=self.erase_edges)
            found.extend(to_levels(variant) for variant in walked)
        return found

    @torch.inference_mode()
    def edges(self, image: np.ndarray) -> np.ndarray:
        """(h, w) float32 edge probability of an (H, W, 3) uint8 image, at stride 4."""
        pixels = torch.from_numpy(np.array(image)).to(self.device)
        return edge_probability(self.network, normalise(pixels[None]))[0].cpu().numpy()


class PixelAdaptiveRefinement:
    """Weighted means over cells of similar colour, scaled to the one maximum of the image."""

    def __init__(self, num_rounds: int, device: torch.device) -> None:
        self.num_rounds = num_rounds
        self.device = device

    @torch.inference_mode()
    def __call__(self, image: np.ndarray, maps: np.ndarray) -> np.ndarray:
        pixels = torch.from_numpy(np.array(image)).to(self.device)
        levels = torch.from_numpy(maps.astype(np.float32) / STORED_LEVELS).to(self.device)
        refined = refine_by_colour(
            normalise(pixels[None], layout=torch.contiguous_format), levels[None], self.num_rounds
        )[0]
        peak = refined.max().clamp(min=1 / STORED_LEVELS)
        return to_levels((refined / peak).cpu().numpy())


def to_levels(maps: np.ndarray) -> np.ndarray:
    """[0, 1] float maps to uint8 0..255, rounded to nearest."""
    return (maps * STORED_LEVELS).round().clip(0, STORED_LEVELS).astype(np.uint8)
