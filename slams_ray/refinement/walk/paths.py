"""Pairs of cells of a grid, and the cells on the straight way between them."""

from dataclasses import dataclass
from functools import lru_cache
from types import EllipsisType

Offset = tuple[int, int]
Region = tuple[EllipsisType, slice, slice]
"""Index of a rectangle of cells in an array whose last axes are rows and columns."""


@dataclass(frozen=True)
class Pairs:
    """All pairs of cells of one grid that lie one offset apart.

    Attributes:
        offset: (rows, columns) from the first cell of a pair, its source, to the second.
        path: the cells between them, relative to the source, both ends included.
        rows, columns: where the sources are.
    """

    offset: Offset
    path: tuple[Offset, ...]
    rows: slice
    columns: slice

    def region(self, cell: Offset) -> Region:
        """The cells that lie at `cell` as seen from each source."""
        (dy, dx), rows, columns = cell, self.rows, self.columns
        return (
            ...,
            slice(rows.start + dy, rows.stop + dy),
            slice(columns.start + dx, columns.stop + dx),
        )

    @property
    def sources(self) -> Region:
        return self.region((0, 0))

    @property
    def targets(self) -> Region:
        return self.region(self.offset)


@lru_cache(maxsize=64)
def pairs_within(radius: int, size: tuple[int, int]) -> tuple[Pairs, ...]:
    """Every unordered pair of cells nearer than the radius, both ends in the grid, by offset.

    Args:
        radius: of the grid's cells; 1 gives no pair.
        size: (h, w) of the grid. Offsets that do not fit into it are left out.
    """
    height, width = size
    return tuple(
        Pairs((dy, dx), path_cells((dy, dx)), slice(0, height - dy), _columns(dx, width))
        for dy, dx in half_plane_offsets(radius)
        if dy < height and abs(dx) < width
    )


def _columns(dx: int, width: int) -> slice:
    return slice(max(0, -dx), width - max(0, dx))


def half_plane_offsets(radius: int) -> list[Offset]:
    """(dy, dx) with dy^2 + dx^2 < radius^2, of each offset and its opposite only one.

    It has dy > 0, or dy = 0 and dx > 0 (IRN, Ahn et al. 2019, section 4.2): 34 for radius 5, 152
    for radius 10.
    """
    return [
        (dy, dx)
        for dy in range(radius)
        for dx in range(1 - radius, radius)
        if (dy > 0 or dx > 0) and dy * dy + dx * dx < radius * radius
    ]


def path_cells(offset: Offset) -> tuple[Offset, ...]:
    """Cells of the bounding box of (0, 0) and the offset that are nearer than 1 to the segment.

    Within the box the distance to the segment is that to the line: |y dx - x dy| / length.
    """
    dy, dx = offset
    return tuple(
        (y, x)
        for y in range(min(0, dy), max(0, dy) + 1)
        for x in range(min(0, dx), max(0, dx) + 1)
        if (y * dx - x * dy) ** 2 < dy * dy + dx * dx
    )
