"""Normalisation of images, and their pyramid of scales (torch)."""

from collections.abc import Iterator
from functools import lru_cache

import torch

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def normalise(
    images: torch.Tensor,
    boxes: torch.Tensor | None = None,
    layout: torch.memory_format = torch.channels_last,
) -> torch.Tensor:
    """Converts (B, H, W, 3) uint8 to (B, 3, H, W) float with ImageNet statistics; padding is 0.

    Args:
        layout: memory format of the result; networks compute channels last.
    """
    count, height, width, _ = images.shape
    mean, std = _imagenet_statistics(images.device)
    # Whole rows of pixels: torch takes six times as long to broadcast over three values at a time.
    rows = images.to(torch.float32, copy=True).reshape(count, height, width * 3)
    rows.div_(255).sub_(mean.repeat(width)).div_(std.repeat(width))
    if boxes is not None:
        inside = _inside(boxes, height)
        rows.mul_(inside[0][:, :, None]).mul_(inside[1].repeat_interleave(3, dim=1)[:, None])
    normalised = rows.view(images.shape).permute(0, 3, 1, 2)
    return normalised.contiguous(memory_format=layout)


@lru_cache(maxsize=8)
def _imagenet_statistics(device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and std, each (3,), cached: copying them would synchronise the GPU."""
    return torch.tensor(IMAGENET_MEAN, device=device), torch.tensor(IMAGENET_STD, device=device)


def valid_mask(boxes: torch.Tensor, crop_px: int) -> torch.Tensor:
    """(B, 1, crop, crop) float, 1 on image and 0 on padding.

    Args:
        boxes: (B, 4) top, left, height and width of the image within the crop.
        crop_px: side of the crop.
    """
    rows, columns = _inside(boxes, crop_px)
    return rows[:, None, :, None] * columns[:, None, None, :]


def _inside(boxes: torch.Tensor, crop_px: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns which rows and which columns are on the image, each (B, crop) float, 0 or 1."""
    axis = torch.arange(crop_px, device=boxes.device)[None]
    rows = (axis >= boxes[:, :1]) & (axis < boxes[:, :1] + boxes[:, 2:3])
    columns = (axis >= boxes[:, 1:2]) & (axis < boxes[:, 1:2] + boxes[:, 3:4])
    return rows.float(), columns.float()


def pyramid(image: torch.Tensor, scales: tuple[float, ...], flip: bool) -> Iterator[torch.Tensor]:
    """Yields (B, 3, H, W) normalised images at each scale, as (B, 3, h, w).

    With `flip` the mirrored images follow: (2 B, 3, h, w).
    """
    for scale in scales:
        size = tuple(max(1, round(side * scale)) for side in image.shape[-2:])
        scaled = image
        if size != tuple(image.shape[-2:]):
            scaled = torch.nn.functional.interpolate(
                image, size=size, mode="bilinear", align_corners=False, antialias=scale < 1
            )
        yield torch.cat([scaled, scaled.flip(-1)]) if flip else scaled
