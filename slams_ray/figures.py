"""Figures for MLflow and the README. Matplotlib is imported when one is drawn."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from slams_ray.core.comparison import Score, by_method, spread
from slams_ray.core.metrics import IGNORE_INDEX, mean_defined
from slams_ray.core.threshold import ThresholdCurve
from slams_ray.data.image import IGNORE_COLOUR
from slams_ray.data.schema import DatasetDescription

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

METHOD_STYLE = {"cam": ("CAM", "#7f7f7f"), "slams": ("SLAMs", "#d1495b")}
VARIANT_COLOUR = "#2e6f9e"
LABEL_OPACITY = 0.6


@dataclass(frozen=True, kw_only=True)
class Example:
    """One row of the montage; maps in [0, 1], label maps uint8, None where there is none.

    Attributes:
        class_index: the class whose maps are shown.
    """

    image_id: str
    image: np.ndarray
    class_index: int
    cam: np.ndarray
    slams: np.ndarray
    refined: np.ndarray
    pseudo_label: np.ndarray
    ground_truth: np.ndarray | None
    prediction: np.ndarray


def _figure(width: float, height: float) -> "Figure":
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=110, layout="constrained")


def to_png(figure: "Figure") -> bytes:
    """The figure as a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def threshold_figure(
    curves: Mapping[str, ThresholdCurve],
    label_free: Mapping[str, Mapping[str, float]] | None = None,
) -> "Figure":
    """mIoU over background thresholds per method, the best of each marked.

    Args:
        label_free: criterion -> background_threshold and regret of its choice for SLAMs.
    """
    figure = _figure(6.4, 4.0)
    axes = figure.add_subplot()
    for method, curve in curves.items():
        name, colour = METHOD_STYLE[method]
        axes.plot(curve.thresholds, 100 * curve.miou, color=colour, label=name, linewidth=2)
        axes.plot(curve.best_threshold, 100 * curve.best_miou, "o", color=colour)
        axes.annotate(
            f"{100 * curve.best_miou:.1f} at {curve.best_threshold:.2f}",
            (curve.best_threshold, 100 * curve.best_miou),
            xytext=(6, 6),
            textcoords="offset points",
            color=colour,
        )
    for marker, (criterion, choice) in zip("s^D", (label_free or {}).items(), strict=False):
        threshold, curve = choice["background_threshold"], curves["slams"]
        height = 100 * (curve.best_miou - choice["regret"])
        label = f"{criterion.replace('_', ' ')}, without masks"
        axes.plot(threshold, height, marker, color="#222222", markersize=5, label=label)
    top = 112 * max(curve.best_miou for curve in curves.values())
    axes.set(xlabel="background threshold", ylabel="seed mIoU [%]", xlim=(0, 1), ylim=(0, top))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return figure


def class_iou_figure(description: DatasetDescription, iou: np.ndarray) -> "Figure":
    """Bars of per-class IoU in the data set's palette, best first, undefined classes left out."""
    order = [i for i in np.argsort(-np.nan_to_num(iou, nan=-1)) if np.isfinite(iou[i])]
    figure = _figure(6.4, 1.2 + 0.24 * len(order))
    axes = figure.add_subplot()
    colours = [tuple(c / 255 for c in description.palette[i]) for i in order]
    values = [100 * float(iou[i]) for i in order]
    axes.barh(range(len(order)), values, color=colours, edgecolor="#444444", linewidth=0.5)
    for position, value in enumerate(values):
        axes.text(value + 1, position, f"{value:.1f}", va="center", fontsize=8)
    axes.set_yticks(range(len(order)), [description.class_names[i] for i in order], fontsize=8)
    axes.invert_yaxis()
    mean = mean_defined(iou) * 100
    axes.axvline(mean, color="#444444", linestyle=":", linewidth=1)
    axes.set(xlabel="IoU [%]", xlim=(0, 105), title=f"mIoU {mean:.1f}")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def montage_figure(description: DatasetDescription, examples: Sequence[Example]) -> "Figure":
    """image | CAM | SLAMs | refined | pseudo label | ground truth | prediction, one image a row."""
    from matplotlib.patches import Patch

    titles = ("image", "CAM", "SLAMs", "refined", "pseudo label", "ground truth", "prediction")
    figure = _figure(1.7 * len(titles), 1.75 * len(examples) + 0.6)
    grid = np.atleast_2d(figure.subplots(len(examples), len(titles), squeeze=False))
    shown: set[int] = set()
    for row, example in zip(grid, examples, strict=True):
        _draw_example(row, example, description)
        for labels in (example.refined, example.prediction, example.ground_truth):
            if labels is not None:
                shown |= {int(i) for i in np.unique(labels)}
    for axes, title in zip(grid[0], titles, strict=True):
        axes.set_title(title, fontsize=10)
    handles = [
        Patch(
            color=tuple(c / 255 for c in description.palette[i]), label=description.class_names[i]
        )
        for i in sorted(shown - {0, IGNORE_INDEX})
    ]
    handles.append(Patch(color=tuple(c / 255 for c in IGNORE_COLOUR), label="ignore"))
    figure.legend(handles=handles, loc="outside lower center", ncols=8, frameon=False, fontsize=8)
    return figure


def _draw_example(row: "Sequence[Axes]", example: Example, description: DatasetDescription) -> None:
    row[0].imshow(example.image)
    row[0].set_ylabel(
        f"{example.image_id}\n{description.class_names[example.class_index]}", fontsize=6
    )
    for axes, activation in zip(row[1:3], (example.cam, example.slams), strict=True):
        axes.imshow(overlay_activation(example.image, activation))
    label_maps = (example.refined, example.pseudo_label, example.ground_truth, example.prediction)
    for axes, labels in zip(row[3:], label_maps, strict=True):
        if labels is not None:
            axes.imshow(overlay_labels(example.image, labels, description.palette))
    for axes in row:
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_visible(False)


def overlay_activation(image: np.ndarray, activation: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8: the image under a heat map of an (H, W) activation in [0, 1]."""
    from matplotlib import colormaps

    heat = colormaps["inferno"](activation)[..., :3] * 255
    return (0.45 * image + 0.55 * heat).astype(np.uint8)


def overlay_labels(
    image: np.ndarray, labels: np.ndarray, palette: Sequence[Sequence[int]]
) -> np.ndarray:
    """(H, W, 3) uint8: the image under the colours of a label map; background stays clear."""
    colours = np.zeros((256, 3))
    colours[: len(palette)] = palette
    colours[IGNORE_INDEX] = IGNORE_COLOUR
    opacity = np.where(labels == 0, 0.0, LABEL_OPACITY)[..., None]
    return ((1 - opacity) * image + opacity * colours[labels]).astype(np.uint8)


def comparison_figure(
    scores: Sequence[Score], metrics: Sequence[str], order: Sequence[str] = ()
) -> "Figure":
    """A panel per metric, a row per method: a dot per seed, the mean as a bar.

    Args:
        order: methods from top to bottom; those not named follow.
    """
    methods = list(dict.fromkeys([*order, *(score.method for score in scores)]))
    figure = _figure(1.6 + 3.2 * len(metrics), 1.0 + 0.36 * len(methods))
    panels = figure.subplots(1, len(metrics), sharey=True, squeeze=False)[0]
    for axes, metric in zip(panels, metrics, strict=True):
        values = by_method(scores, metric)
        for row, method in enumerate(methods):
            found = list(values.get(method, {}).values())
            if not found:
                continue
            _, colour = METHOD_STYLE.get(method, ("", VARIANT_COLOUR))
            mean = 100 * spread(found).mean
            axes.plot([mean, mean], [row - 0.3, row + 0.3], color=colour, linewidth=3)
            axes.plot([100 * v for v in found], [row] * len(found), "o", color=colour, alpha=0.5)
            axes.annotate(
                f"{mean:.1f}",
                (mean, row - 0.3),
                xytext=(0, 2),
                textcoords="offset points",
                ha="center",
                fontsize=8,
            )
        axes.set_xlabel(f"{metric.replace('_', ' ').replace('miou', 'mIoU')} [%]")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="x", linewidth=0.4)
        axes.margins(x=0.15)
    names = [METHOD_STYLE.get(method, (method, ""))[0] for method in methods]
    panels[0].set_yticks(range(len(methods)), names, fontsize=9)
    panels[0].set_ylim(len(methods) - 0.4, -0.8)
    return figure
