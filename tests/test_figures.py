import io
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from matplotlib.patches import Rectangle
from PIL import Image

from slams_ray.data.image import IGNORE_COLOUR
from slams_ray.data.schema import DatasetDescription, voc_palette
from slams_ray.figures.montage import (
    LABEL_OPACITY,
    Example,
    SettingsExample,
    montage_figure,
    overlay_activation,
    overlay_labels,
    settings_figure,
)
from slams_ray.figures.scores import class_iou_figure, comparison_figure, threshold_figure
from slams_ray.seeds.threshold import ThresholdCurve

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DESCRIPTION = DatasetDescription(
    name="made up",
    class_names=("background", "cat", "dog", "cow"),
    category_ids=(0, 1, 2, 3),
    palette=voc_palette(4),
)


def draw(figure: "Figure") -> np.ndarray:
    """Pixels of the figure drawn as a PNG in memory."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return np.asarray(Image.open(buffer).convert("RGB"))


TITLES = {"cam": "CAM", "slams": "SLAMs"}


def curve(best: float) -> ThresholdCurve:
    thresholds = np.linspace(0, 1, 11)
    miou = 0.6 - np.abs(thresholds - best)
    return ThresholdCurve(
        thresholds=thresholds,
        iou=np.repeat(miou[:, None], 4, axis=1),
        miou=miou,
        foreground_precision=np.full(11, np.nan),
        foreground_recall=miou,
    )


def example(seed: int, ground_truth: bool) -> Example:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, (20, 30)).astype(np.uint8)
    labels[0] = 255
    return Example(
        image_id=f"image {seed}",
        image=rng.integers(0, 256, (20, 30, 3)).astype(np.uint8),
        class_index=2,
        maps={name: rng.random((20, 30), np.float32) for name in TITLES.values()},
        refined=labels,
        pseudo_label=labels,
        ground_truth=labels if ground_truth else None,
        prediction=labels,
    )


def test_the_threshold_figure_has_a_line_per_method_and_marks_its_best() -> None:
    figure = threshold_figure({"cam": curve(0.2), "slams": curve(0.5)}, TITLES)
    assert draw(figure).std() > 0
    (axes,) = figure.axes
    names = [text.get_text() for text in axes.get_legend().get_texts()]
    assert names == ["CAM: 60.0 at 0.20", "SLAMs: 60.0 at 0.50"]
    np.testing.assert_allclose(axes.lines[0].get_ydata(), 100 * curve(0.2).miou)
    assert axes.lines[3].get_xdata()[0] == pytest.approx(0.5)


def test_the_threshold_figure_marks_the_confident_pair_and_choices_without_masks() -> None:
    free = {"bimodality": {"background_threshold": 0.4, "regret": 0.1}}
    (axes,) = threshold_figure({"slams": curve(0.5)}, TITLES, free, (0.3, 0.7)).axes
    (band,) = axes.patches
    assert isinstance(band, Rectangle)
    assert band.get_x() == pytest.approx(0.3)
    assert band.get_width() == pytest.approx(0.4)
    mark = axes.lines[-1]
    assert (mark.get_xdata()[0], mark.get_ydata()[0]) == pytest.approx((0.4, 50.0))


def test_the_settings_figure_has_a_panel_per_setting_and_no_truth_where_there_is_none() -> None:
    labels = [np.full((20, 30), index, np.uint8) for index in (2, 1, 0)]
    image = np.zeros((20, 30, 3), np.uint8)
    rows = [
        SettingsExample(image_id="a", image=image, labels=labels, ground_truth=labels[1]),
        SettingsExample(image_id="b", image=image, labels=labels, ground_truth=None),
    ]
    figure = settings_figure(DESCRIPTION, ("low", "chosen", "high"), rows)
    assert draw(figure).std() > 0
    assert [len(axes.images) for axes in figure.axes] == [1] * 5 + [1] * 4 + [0]
    titles = [axes.get_title() for axes in figure.axes[:5]]
    assert titles == ["image", "low", "chosen", "high", "ground truth"]
    (legend,) = figure.legends
    assert [t.get_text() for t in legend.get_texts()] == ["cat", "dog"]


def test_the_class_figure_has_a_bar_per_defined_class_best_first() -> None:
    figure = class_iou_figure(DESCRIPTION, np.array([0.9, 0.25, np.nan, 0.5]))
    assert draw(figure).std() > 0
    (axes,) = figure.axes
    assert [bar.get_width() for bar in axes.containers[0]] == [90, 50, 25]
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == ["background", "cow", "cat"]
    assert axes.get_title() == "mIoU 55.0"


def test_a_bar_has_the_colour_of_its_class() -> None:
    (axes,) = class_iou_figure(DESCRIPTION, np.array([0.9, 0.25, np.nan, 0.5])).axes
    colours = [tuple(round(255 * c) for c in bar.get_facecolor()[:3]) for bar in axes.patches]
    assert colours == [DESCRIPTION.palette[i] for i in (0, 3, 1)]


def test_the_montage_has_seven_panels_per_image() -> None:
    figure = montage_figure(DESCRIPTION, [example(0, True), example(1, False)])
    assert draw(figure).std() > 0
    assert len(figure.axes) == 14
    titles = [axes.get_title() for axes in figure.axes[:7]]
    assert titles[0] == "image"
    assert titles[5:] == ["ground truth", "prediction"]
    assert [len(axes.images) for axes in figure.axes] == [1] * 7 + [1] * 5 + [0, 1]


def test_without_any_ground_truth_the_montage_has_no_column_for_it() -> None:
    figure = montage_figure(DESCRIPTION, [example(0, False), example(1, False)])
    titles = [axes.get_title() for axes in figure.axes[:6]]
    assert titles[3:] == ["refined", "pseudo label", "prediction"]
    assert [len(axes.images) for axes in figure.axes] == [1] * 12


def test_the_montage_of_one_image_names_the_classes_it_shows() -> None:
    figure = montage_figure(DESCRIPTION, [example(0, True)])
    draw(figure)
    (legend,) = figure.legends
    assert [t.get_text() for t in legend.get_texts()] == ["cat", "dog", "cow", "ignore"]


def test_overlaid_labels_leave_background_and_mix_colours_elsewhere() -> None:
    image = np.random.default_rng(0).integers(0, 256, (4, 3, 3)).astype(np.uint8)
    labels = np.array([[0, 1, 2]] * 3 + [[255, 0, 3]], np.uint8)
    result = overlay_labels(image, labels, DESCRIPTION.palette)
    assert result.dtype == np.uint8
    for row in range(4):
        for column in range(3):
            index = labels[row, column]
            expected = image[row, column].astype(float)
            if index:
                colour = IGNORE_COLOUR if index == 255 else DESCRIPTION.palette[index]
                expected = (1 - LABEL_OPACITY) * expected + LABEL_OPACITY * np.array(colour)
            np.testing.assert_allclose(result[row, column], expected, atol=1)
    np.testing.assert_array_equal(result[labels == 0], image[labels == 0])


def test_a_stronger_activation_is_brighter() -> None:
    image = np.full((1, 11, 3), 90, np.uint8)
    result = overlay_activation(image, np.linspace(0, 1, 11, dtype=np.float32)[None])
    assert (result.shape, result.dtype) == ((1, 11, 3), np.uint8)
    brightness = result[0].astype(int).sum(axis=1)
    assert (np.diff(brightness) > 0).all()


def test_dollars_in_names_are_no_formula() -> None:
    names = ("background", "price $^$", "_$x^$", "dog")
    description = replace(DESCRIPTION, class_names=names)
    shown = replace(example(0, True), image_id="a $^$", class_index=1, maps={"$_$": np.eye(20, 30)})
    figure = montage_figure(description, [shown])
    assert draw(figure).std() > 0
    assert figure.axes[0].get_ylabel() == "a $^$\nprice $^$"
    assert figure.axes[1].get_title() == "$_$"
    assert [t.get_text() for t in figure.legends[0].get_texts()] == [*names[1:], "ignore"]
    row = SettingsExample(image_id="$^$", image=shown.image, labels=[], ground_truth=shown.refined)
    assert draw(settings_figure(description, (), [row])).std() > 0
    bars = class_iou_figure(description, np.array([0.9, 0.8, 0.7, 0.6]))
    assert draw(bars).std() > 0
    assert tuple(label.get_text() for label in bars.axes[0].get_yticklabels()) == names
    assert draw(threshold_figure({"cam": curve(0.2)}, {"cam": "$^$"})).std() > 0
    methods = {"cam": "CAM $^$", "slams": "SLAMs"}
    comparison = comparison_figure({"seed_miou": {"cam": [0.4], "slams": [0.5]}}, methods)
    assert draw(comparison).std() > 0
    found = [label.get_text() for label in comparison.axes[0].get_yticklabels()]
    assert found == list(methods.values())
