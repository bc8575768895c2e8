"""Figures of scores: threshold curves, IoU per class, comparisons of methods."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np

from slams_ray.data.schema import DatasetDescription
from slams_ray.figures.canvas import OTHER_COLOURS, colours, new_figure
from slams_ray.metrics import mean_defined
from slams_ray.seeds.threshold import ThresholdCurve

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def threshold_figure(
    curves: Mapping[str, ThresholdCurve],
    titles: Mapping[str, str],
    label_free: Mapping[str, Mapping[str, float]] | None = None,
    confident_pair: tuple[float, float] | None = None,
) -> "Figure":
    """Draws mIoU over background thresholds for each system, and marks its best threshold.

    Args:
        titles: system -> name in the legend.
        label_free: criterion -> background_threshold and regret of its choice for the last system.
        confident_pair: background thresholds to shade between; there, pseudo labels are 255.
    """
    figure = new_figure(6.4, 4.0)
    axes = figure.add_subplot()
    colour_of = colours(list(curves))
    for system, curve in curves.items():
        best = f"{100 * curve.best_miou:.1f} at {curve.best_threshold:.2f}"
        colour, label = colour_of[system], f"{titles[system]}: {best}"
        axes.plot(curve.thresholds, 100 * curve.miou, color=colour, label=label, linewidth=2)
        axes.plot(curve.best_threshold, 100 * curve.best_miou, "o", color=colour)
    shown = list(curves.values())[-1]
    for marker, (criterion, choice) in zip("vs^D", (label_free or {}).items(), strict=False):
        height = 100 * (shown.best_miou - choice["regret"])
        label = f"{criterion.replace('_', ' ')}, without masks"
        threshold = choice["background_threshold"]
        axes.plot(threshold, height, marker, color="#222222", markersize=5, label=label)
    if confident_pair is not None:
        axes.axvspan(*confident_pair, color=OTHER_COLOURS[0], alpha=0.12, label="confident pair")
    # Leave room above the curves, because the legend would cover one of them.
    top = 150 * max(curve.best_miou for curve in curves.values())
    axes.set(xlabel="background threshold", ylabel="seed mIoU [%]", xlim=(0, 1), ylim=(0, top))
    axes.spines[["top", "right"]].set_visible(False)
    legend = axes.legend(frameon=False, ncols=2, fontsize=8, loc="upper left")
    for text in legend.get_texts():
        text.set_parse_math(False)
    return figure


def class_iou_figure(description: DatasetDescription, iou: np.ndarray) -> "Figure":
    """Draws bars of per-class IoU in the data set's palette, best first, without undefined ones."""
    order = [i for i in np.argsort(-np.nan_to_num(iou, nan=-1)) if np.isfinite(iou[i])]
    figure = new_figure(6.4, 1.2 + 0.24 * len(order))
    axes = figure.add_subplot()
    colours = [tuple(c / 255 for c in description.palette[i]) for i in order]
    values = [100 * float(iou[i]) for i in order]
    axes.barh(range(len(order)), values, color=colours, edgecolor="#444444", linewidth=0.5)
    for position, value in enumerate(values):
        axes.text(value + 1, position, f"{value:.1f}", va="center", fontsize=8)
    names = [description.class_names[i] for i in order]
    axes.set_yticks(range(len(order)), names, fontsize=8, parse_math=False)
    axes.invert_yaxis()
    mean = mean_defined(iou) * 100
    axes.axvline(mean, color="#444444", linestyle=":", linewidth=1)
    axes.set(xlabel="IoU [%]", xlim=(0, 105), title=f"mIoU {mean:.1f}")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def comparison_figure(
    values: Mapping[str, Mapping[str, Sequence[float]]], titles: Mapping[str, str]
) -> "Figure":
    """Draws a panel per metric with a row per method: a dot per random seed, a bar for the mean.

    Args:
        values: metric -> method -> values of the random seeds, as fractions.
        titles: method -> title in the figure, from top to bottom, the baseline first.
    """
    methods = list(titles)
    colour_of = colours(methods)
    figure = new_figure(1.6 + 3.2 * len(values), 1.0 + 0.36 * len(methods))
    panels = figure.subplots(1, len(values), sharey=True, squeeze=False)[0]
    for axes, (metric, by_method) in zip(panels, values.items(), strict=True):
        for row, method in enumerate(methods):
            found = by_method.get(method, ())
            if not found:
                continue
            colour = colour_of[method]
            mean = 100 * fmean(found)
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
    panels[0].set_yticks(range(len(methods)), list(titles.values()), fontsize=9, parse_math=False)
    panels[0].set_ylim(len(methods) - 0.4, -0.8)
    return figure
