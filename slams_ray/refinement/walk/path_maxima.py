"""Largest value on the path of every pair, by running maxima of shifted slices, in torch."""

import torch

from slams_ray.refinement.walk.paths import Pairs


def path_maxima(values: torch.Tensor, pairs: Pairs) -> torch.Tensor:
    """(..., rows, columns): of each source, the largest of (..., h, w) values on its path.

    It holds one number a pair; gathering the cells of all paths would hold 14 for radius 10.
    """
    first, *others = pairs.path
    largest = values[pairs.region(first)].clone()
    for cell in others:
        torch.maximum(largest, values[pairs.region(cell)], out=largest)
    return largest
