"""Figures and their PNGs. matplotlib is imported only when a figure is drawn."""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BASELINE_COLOUR, OWN_COLOUR = "#7f7f7f", "#d1495b"
OTHER_COLOURS = ("#2e6f9e", "#5a9e6f", "#c98a2b", "#7b5ea7", "#2aa198", "#8c564b")


def colours(names: Sequence[str]) -> dict[str, str]:
    """Returns name -> colour: grey for the first name, which is the baseline, red for the last."""
    found = {name: OTHER_COLOURS[i % len(OTHER_COLOURS)] for i, name in enumerate(names)}
    return found | {names[0]: BASELINE_COLOUR} | {names[-1]: OWN_COLOUR}


def new_figure(width: float, height: float) -> "Figure":
    """Returns an empty figure of a size in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=110, layout="constrained")


def to_png(figure: "Figure") -> bytes:
    """Returns the figure as bytes of a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
