"""Pixel-adaptive refinement (PAR): maps follow the colours of the image, without training.

Source: AFA, Ru et al. 2022, section 3.3. Every cell becomes a weighted mean of 48 others, those
that look like it counting most, again and again.
"""

from collections.abc import Iterator

import torch
from torch.nn import functional as F

DILATIONS = (1, 2, 4, 8, 12, 24)
DIRECTIONS = tuple((y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0))
NEIGHBOURS = tuple((d * y, d * x) for d in DILATIONS for y, x in DIRECTIONS)
WIDTH = 0.3
"""Of a difference that counts, in standard deviations over the neighbours."""
DISTANCE_WEIGHT = 0.01
EPSILON = 1e-8
NUM_ROUNDS = 10


def refine_by_colour(
    images: torch.Tensor, maps: torch.Tensor, num_rounds: int = NUM_ROUNDS
) -> torch.Tensor:
    """(B, C, h, w) maps after so many rounds; they stay within the range of the given ones.

    Differentiable in the maps. Cells beyond the border count as the nearest cell.

    Args:
        images: (B, 3, H, W) float of any range, resized to the maps' size.
        maps: (B, C, h, w) float; C may be 0.
        num_rounds: 10 to 20.
    """
    if not maps.numel():
        return maps
    small = F.interpolate(
        images.float(), size=maps.shape[-2:], mode="bilinear", align_corners=False, antialias=True
    )
    weights = neighbour_weights(small)
    refined = maps
    for _ in range(num_rounds):
        mean = torch.zeros_like(maps)
        for neighbour, weight in zip(_neighbours(refined), weights.unbind(dim=1), strict=True):
            mean = torch.addcmul(mean, neighbour, weight[:, None])
        refined = mean
    return refined


def neighbour_weights(images: torch.Tensor) -> torch.Tensor:
    """(B, 48, h, w) weights of the `NEIGHBOURS` of each cell; they sum to 1.

    The source adds a softmax over distances, times 0.01, to that over colours, so that its weights
    sum to 1.01 and 20 rounds raise maps by 1.22: here the sum is divided by 1.01.

    Args:
        images: (B, 3, h, w) float.
    """
    around = torch.stack(list(_neighbours(images)), dim=1)
    spread = around.std(dim=1, keepdim=True) + EPSILON
    difference = (around - images[:, None]) / (WIDTH * spread)
    by_colour = (-difference.square().mean(dim=2)).softmax(dim=1)
    distance = images.new_tensor(NEIGHBOURS).norm(dim=1)
    by_distance = (-(distance / (WIDTH * distance.std())).square()).softmax(dim=0)
    total = by_colour + DISTANCE_WEIGHT * by_distance[:, None, None]
    return total / (1 + DISTANCE_WEIGHT)


def _neighbours(values: torch.Tensor) -> Iterator[torch.Tensor]:
    """(B, N, h, w) values as each of the `NEIGHBOURS` has them."""
    height, width = values.shape[-2:]
    margin = max(DILATIONS)
    padded = F.pad(values, (margin,) * 4, mode="replicate")
    for dy, dx in NEIGHBOURS:
        top, left = margin + dy, margin + dx
        yield padded[..., top : top + height, left : left + width]
