"""Prediction of a large image in overlapping tiles, with bounded memory."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from slams_ray.errors import ConfigError

ALIGNMENT_PX = 32
"""Tiles start at multiples of this, so that the network's grid is the same in every tile."""
MIN_TILE_PX = 4 * ALIGNMENT_PX

Predict = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""(h, w, 3) uint8 -> (h, w) uint8 class indices and (h, w) float32 confidence."""


@dataclass(frozen=True)
class Span:
    """A tile along one axis, in pixels: what it sees, and the part that it decides."""

    start: int
    stop: int
    kept_start: int
    kept_stop: int


def check_tile(tile_px: int | None) -> None:
    """Raises ConfigError unless the side of a tile can be used."""
    if tile_px is not None and (tile_px < MIN_TILE_PX or tile_px % ALIGNMENT_PX):
        raise ConfigError(
            f"tile_px is {tile_px}, expected a multiple of {ALIGNMENT_PX} of at least {MIN_TILE_PX}"
        )


def overlap_of(tile_px: int) -> int:
    """Overlap of neighbouring tiles: a quarter of a tile, in multiples of `ALIGNMENT_PX`."""
    return max(1, tile_px // 4 // ALIGNMENT_PX) * ALIGNMENT_PX


def spans(length: int, tile_px: int) -> list[Span]:
    """Cuts an axis into tiles. Each pixel is decided by one tile, at the middle of overlaps."""
    overlap = overlap_of(tile_px)
    starts = list(range(0, max(1, length - overlap), tile_px - overlap))
    bounds = [0, *(start + overlap // 2 for start in starts[1:]), length]
    return [
        Span(start, min(start + tile_px, length), low, high)
        for start, low, high in zip(starts, bounds[:-1], bounds[1:], strict=True)
    ]


def predict_in_tiles(
    predict: Predict, image: np.ndarray, tile_px: int
) -> tuple[np.ndarray, np.ndarray]:
    """Predicts tile by tile. It equals `predict` where the network sees no further than a tile.

    Args:
        image: (H, W, 3) uint8.

    Returns:
        (H, W) uint8 class indices, and (H, W) float32 confidence.
    """
    labels = np.empty(image.shape[:2], np.uint8)
    confidence = np.empty(image.shape[:2], np.float32)
    for row in spans(image.shape[0], tile_px):
        for column in spans(image.shape[1], tile_px):
            tile = image[row.start : row.stop, column.start : column.stop]
            kept = np.s_[row.kept_start : row.kept_stop, column.kept_start : column.kept_stop]
            inner = np.s_[
                row.kept_start - row.start : row.kept_stop - row.start,
                column.kept_start - column.start : column.kept_stop - column.start,
            ]
            tile_labels, tile_confidence = predict(tile)
            labels[kept], confidence[kept] = tile_labels[inner], tile_confidence[inner]
    return labels, confidence
