"""A figure to draw on, and the PNG it becomes. Matplotlib is imported when one is drawn."""

import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

METHOD_STYLE = {"cam": ("CAM", "#7f7f7f"), "slams": ("SLAMs", "#d1495b")}
VARIANT_COLOUR = "#2e6f9e"


def new_figure(width: float, height: float) -> "Figure":
    """A figure of that size in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=110, layout="constrained")


def to_png(figure: "Figure") -> bytes:
    """The figure as a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
