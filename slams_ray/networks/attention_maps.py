"""Maps from the attention of a vision transformer (CLIP-ES, MCTformer; docs/method.md)."""

import torch
from torch.nn import functional as F

EPSILON = 1e-7
NUM_BALANCINGS = 3
"""Times that rows and columns of an attention matrix are normalised, as published."""


def resized_positions(positions: torch.Tensor, size: tuple[int, int], mode: str) -> torch.Tensor:
    """(h w, D) position embeddings of a grid, resized from (N, D) of a square grid.

    Args:
        size: h and w of the grid.
        mode: "bilinear" (CLIP-ES) or "bicubic" (MCTformer).
    """
    side = round(len(positions) ** 0.5)
    if size == (side, side):
        return positions
    grid = positions.T.reshape(1, -1, side, side).float()
    resized = F.interpolate(grid, size=size, mode=mode, align_corners=False)
    return resized[0].flatten(1).T.to(positions.dtype)


def grad_cam(activations: torch.Tensor, gradients: torch.Tensor) -> torch.Tensor:
    """(B, N) Grad-CAM of N patches, scaled to the range from 0 to 1 (Selvaraju et al., ICCV 2017).

    ReLU(sum over d of w_d a_nd), where w_d is the mean over the patches of the gradient.

    Args:
        activations, gradients: (B, N, D) of the patches, without class tokens.
    """
    weights = gradients.mean(dim=1, keepdim=True)
    maps = (activations * weights).sum(dim=2).relu()
    maps = maps - maps.amin(dim=1, keepdim=True)
    return maps / (maps.amax(dim=1, keepdim=True) + EPSILON)


def balanced_affinity(attention: torch.Tensor) -> torch.Tensor:
    """(B, N, N) affinity of patches (CLIP-ES): balanced attention, made symmetric and squared.

    Args:
        attention: (B, N, N) non-negative, mean over blocks and heads; row i attends to columns.
    """
    affinity = attention.float()
    for _ in range(NUM_BALANCINGS):
        affinity = affinity / (affinity.sum(dim=1, keepdim=True) + EPSILON)
        affinity = affinity / (affinity.sum(dim=2, keepdim=True) + EPSILON)
    affinity = (affinity + affinity.transpose(1, 2)) / 2
    return affinity @ affinity


def boxes_mask(map_: torch.Tensor, share: float) -> torch.Tensor:
    """(h, w) bool, true in the bounding boxes of the regions above a share of the maximum.

    Regions are connected over sides and corners. A map of zeros has no region.

    Args:
        map_: (h, w) non-negative.
    """
    from scipy import ndimage

    mask = torch.zeros(map_.shape, dtype=torch.bool)
    above = (map_ > share * map_.max()).cpu().numpy()
    regions, _ = ndimage.label(above, structure=[[1, 1, 1]] * 3)
    for rows, columns in ndimage.find_objects(regions):
        mask[rows, columns] = True
    return mask.to(map_.device)


def refined_in_boxes(map_: torch.Tensor, affinity: torch.Tensor, share: float) -> torch.Tensor:
    """(h, w) map, where each patch is the sum of the map in the boxes, weighted by its affinity.

    Args:
        map_: (h, w) non-negative.
        affinity: (h w, h w), row i for patch i.
        share: see `boxes_mask`.
    """
    inside = map_ * boxes_mask(map_, share)
    return (affinity @ inside.flatten()).view_as(map_)


def present_softmax(cosines: torch.Tensor, labels: torch.Tensor, scale: float) -> torch.Tensor:
    """(B, C) softmax over the present classes and the backgrounds; 0 for absent classes.

    Args:
        cosines: (B, C + G) of an image and of the texts of C classes and G backgrounds.
        labels: (B, C) multi-hot.
    """
    num_classes = labels.shape[1]
    competes = F.pad(labels.bool(), (0, cosines.shape[1] - num_classes), value=True)
    return (scale * cosines).masked_fill(~competes, -torch.inf).softmax(dim=1)[:, :num_classes]


def token_maps(attention: torch.Tensor, logits: torch.Tensor, num_blocks: int) -> torch.Tensor:
    """(B, C, h, w) maps of class tokens (MCTformer), scaled to the range from 0 to 1.

    The attention of the token of class k to the patches, summed over the last blocks, times ReLU of
    the logits; each patch then takes the sum of the map, weighted by its attention to the patches,
    summed over all blocks.

    Args:
        attention: (L, B, C + h w, C + h w) mean over heads; row i attends to columns.
        logits: (B, C, h, w).
        num_blocks: number of last blocks.
    """
    num_classes = logits.shape[1]
    total = attention.float().sum(dim=0)
    of_classes = attention[-num_blocks:, :, :num_classes, num_classes:].float().sum(dim=0)
    maps = of_classes * logits.float().relu().flatten(2)
    spread = maps @ total[:, num_classes:, num_classes:].transpose(1, 2)
    spread = spread - spread.amin(dim=2, keepdim=True)
    return (spread / (spread.amax(dim=2, keepdim=True) + EPSILON)).view_as(logits)
