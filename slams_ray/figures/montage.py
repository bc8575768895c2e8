"""Montages: images with maps and labels drawn over them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from slams_ray.data.image import IGNORE_COLOUR
from slams_ray.data.schema import DatasetDescription
from slams_ray.figures.canvas import new_figure
from slams_ray.metrics import IGNORE_INDEX

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LABEL_OPACITY = 0.6


@dataclass(frozen=True, kw_only=True)
class Example:
    """One row of the montage.

    Attributes:
        image: (H, W, 3) uint8.
        class_index: class whose maps are shown.
        maps: title -> (H, W) map in [0, 1], of each system and of the edges that a walk follows.
            Every row has the same titles.
        refined, pseudo_label, prediction: (H, W) uint8 label maps.
        ground_truth: (H, W) uint8; None if there is none.
    """

    image_id: str
    image: np.ndarray
    class_index: int
    maps: Mapping[str, np.ndarray]
    refined: np.ndarray
    pseudo_label: np.ndarray
    ground_truth: np.ndarray | None
    prediction: np.ndarray


@dataclass(frozen=True, kw_only=True)
class SettingsExample:
    """One row of the settings montage.

    Attributes:
        labels: (H, W) uint8 label map at each setting.
        ground_truth: (H, W) uint8; None if there is none.
    """

    image_id: str
    image: np.ndarray
    labels: Sequence[np.ndarray]
    ground_truth: np.ndarray | None


def montage_figure(description: DatasetDescription, examples: Sequence[Example]) -> "Figure":
    """Draws a row per image: image, maps, label maps, ground truth, prediction.

    Args:
        examples: at least one.
    """
    maps = tuple(examples[0].maps)
    truth = _truth_title(examples)
    titles = ("image", *maps, "refined", "pseudo label", *truth, "prediction")
    figure, grid = _grid(titles, len(examples))
    label_maps: list[np.ndarray | None] = []
    for row, example in zip(grid, examples, strict=True):
        class_name = description.class_names[example.class_index]
        _show_image(row[0], example.image, f"{example.image_id}\n{class_name}")
        for axes, activation in zip(row[1:], example.maps.values(), strict=False):
            axes.imshow(overlay_activation(example.image, activation))
        labels = (
            example.refined,
            example.pseudo_label,
            *([example.ground_truth] if truth else []),
            example.prediction,
        )
        _show_labels(row[1 + len(maps) :], example.image, labels, description)
        label_maps.extend(labels)
    _add_legend(figure, label_maps, description)
    return figure


def settings_figure(
    description: DatasetDescription, settings: Sequence[str], examples: Sequence[SettingsExample]
) -> "Figure":
    """Draws a row per image: image, labels at each setting, ground truth.

    Args:
        settings: title of each setting.
    """
    truth = _truth_title(examples)
    figure, grid = _grid(("image", *settings, *truth), len(examples))
    label_maps: list[np.ndarray | None] = []
    for row, example in zip(grid, examples, strict=True):
        _show_image(row[0], example.image, example.image_id)
        labels = (*example.labels, *([example.ground_truth] if truth else []))
        _show_labels(row[1:], example.image, labels, description)
        label_maps.extend(labels)
    _add_legend(figure, label_maps, description)
    return figure


def _truth_title(examples: Sequence[Example | SettingsExample]) -> tuple[str, ...]:
    """Returns the title of the ground truth; nothing if no image has one."""
    return ("ground truth",) * any(example.ground_truth is not None for example in examples)


def _grid(titles: Sequence[str], num_rows: int) -> "tuple[Figure, np.ndarray]":
    figure = new_figure(1.7 * len(titles), 1.75 * num_rows + 0.6)
    grid = np.atleast_2d(figure.subplots(num_rows, len(titles), squeeze=False))
    for axes in grid.flat:
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_visible(False)
    for axes, title in zip(grid[0], titles, strict=True):
        axes.set_title(title, fontsize=10, parse_math=False)
    return figure, grid


def _show_image(axes: "Axes", image: np.ndarray, caption: str) -> None:
    axes.imshow(image)
    axes.set_ylabel(caption, fontsize=6, parse_math=False)


def _show_labels(
    row: "Sequence[Axes]",
    image: np.ndarray,
    label_maps: Sequence[np.ndarray | None],
    description: DatasetDescription,
) -> None:
    for axes, labels in zip(row, label_maps, strict=True):
        if labels is not None:
            axes.imshow(overlay_labels(image, labels, description.palette))


def _add_legend(
    figure: "Figure", label_maps: Sequence[np.ndarray | None], description: DatasetDescription
) -> None:
    """Adds a legend of the classes in the label maps."""
    from matplotlib.patches import Patch

    shown = {int(i) for labels in label_maps if labels is not None for i in np.unique(labels)}
    handles = [
        Patch(
            color=tuple(c / 255 for c in description.palette[i]), label=description.class_names[i]
        )
        for i in sorted(shown - {0, IGNORE_INDEX})
    ]
    if IGNORE_INDEX in shown:
        handles.append(Patch(color=tuple(c / 255 for c in IGNORE_COLOUR), label="ignore"))
    legend = figure.legend(
        handles=handles, loc="outside lower center", ncols=8, frameon=False, fontsize=8
    )
    for text in legend.get_texts():
        text.set_parse_math(False)


def overlay_activation(image: np.ndarray, activation: np.ndarray) -> np.ndarray:
    """Blends an image with a heat map of an (H, W) activation in [0, 1]; (H, W, 3) uint8."""
    from matplotlib import colormaps

    heat = colormaps["inferno"](activation)[..., :3] * 255
    return (0.45 * image + 0.55 * heat).astype(np.uint8)


def overlay_labels(
    image: np.ndarray, labels: np.ndarray, palette: Sequence[Sequence[int]]
) -> np.ndarray:
    """Blends an image with the colours of a label map; (H, W, 3) uint8. Background stays clear."""
    colours = np.zeros((256, 3))
    colours[: len(palette)] = palette
    colours[IGNORE_INDEX] = IGNORE_COLOUR
    opacity = np.where(labels == 0, 0.0, LABEL_OPACITY)[..., None]
    return ((1 - opacity) * image + opacity * colours[labels]).astype(np.uint8)
