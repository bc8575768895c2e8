"""Figures of a chosen refinement: its threshold on the curve, and labels at other thresholds."""

from dataclasses import dataclass

import numpy as np

from slams_ray import storage
from slams_ray.data.image import decode_image, decode_mask
from slams_ray.data.source import TRAIN
from slams_ray.data.stored_maps import unpack_maps, upsample_stored
from slams_ray.figures.canvas import to_png
from slams_ray.figures.montage import SettingsExample, settings_figure
from slams_ray.figures.scores import threshold_figure
from slams_ray.refinement.pseudo_label import (
    ConfidentPair,
    Refinement,
    labels_of_present,
    refined_positions,
)
from slams_ray.stages import search_threshold
from slams_ray.stages.examples import choose_examples
from slams_ray.stages.infer_activation import activations_dir
from slams_ray.stages.prepare import PreparedData
from slams_ray.stages.stage import Attempt, Result
from slams_ray.systems.registry import titles
from slams_ray.training.data_loading import ShardColumns
from slams_ray.training.samples import Row

CURVE_NAME = "threshold_curve.png"
MONTAGE_NAME = "settings.png"
THRESHOLD_STEP = 0.25
ALPHA_FACTOR = 3.0


@dataclass(frozen=True, kw_only=True)
class ShownRefinement:
    """Refinement to show, and the stages it was chosen from."""

    data: PreparedData
    activations: Result
    threshold: Result
    system: str
    refinement: Refinement
    pair: ConfidentPair


def show_settings(attempt: Attempt, shown: ShownRefinement, num_examples: int) -> None:
    """Draws and logs two figures of a refinement.

    One is the threshold curve with the confident pair. The other shows the labels at the chosen
    threshold, and at a lower and a higher one.
    """
    pictures = {
        CURVE_NAME: _curve_picture(shown),
        MONTAGE_NAME: _montage_picture(shown, num_examples),
    }
    for name, png in pictures.items():
        if png is None:
            continue
        path = storage.join(attempt.output_dir, name)
        storage.write_bytes(path, png)
        attempt.run.log_file(path)


def _curve_picture(shown: ShownRefinement) -> bytes | None:
    """Returns the curve as PNG; None if nothing could be scored."""
    curves = search_threshold.read_curves(shown.threshold)
    if not curves:
        return None
    is_threshold = shown.refinement.form != "power"
    pair = (shown.pair.background, shown.pair.foreground) if is_threshold else None
    free = search_threshold.label_free_choices(shown.threshold, list(curves)[-1])
    return to_png(threshold_figure(curves, titles(curves), free, pair))


def _montage_picture(shown: ShownRefinement, num_examples: int) -> bytes | None:
    """Returns the montage as PNG; None if no image has a label."""
    names = shown.data.names(TRAIN)
    rows = choose_examples(names, _sources(shown), num_examples)
    if not rows:
        return None
    values = values_around(shown.refinement.form, shown.pair.chosen)
    what = "alpha" if shown.refinement.form == "power" else "threshold"
    headings = [
        f"{what} {value:.2f}\n{name}"
        for value, name in zip(values, ("too low", "chosen", "too high"), strict=True)
    ]
    examples = [_example(row, shown, values) for row in rows]
    return to_png(settings_figure(shown.data.description, headings, examples))


def values_around(form: str, chosen: float) -> tuple[float, float, float]:
    """Returns three thresholds or alphas: one that is too low, the chosen one, one too high."""
    if form == "power":
        return chosen / ALPHA_FACTOR, chosen, chosen * ALPHA_FACTOR
    low, high = np.clip([chosen - THRESHOLD_STEP, chosen + THRESHOLD_STEP], 0.02, 0.98)
    return float(low), chosen, float(high)


def _sources(shown: ShownRefinement) -> list[ShardColumns]:
    images = shown.data.images(TRAIN)
    maps = activations_dir(shown.activations.output_dir)
    return [
        ShardColumns(directory=images, columns=("image", "mask", "image_labels")),
        ShardColumns(directory=maps, columns=(shown.system,)),
    ]


def _example(row: Row, shown: ShownRefinement, values: tuple[float, ...]) -> SettingsExample:
    image = decode_image(row["image"], row["image_id"])
    class_indices = np.asarray(row["image_labels"], np.int64)
    stored = unpack_maps(row[shown.system], class_indices, *image.shape[:2])
    activation = upsample_stored(stored, image.shape[:2])
    positions = refined_positions(image, activation, values, shown.refinement)
    return SettingsExample(
        image_id=row["image_id"],
        image=image,
        labels=[labels_of_present(p, class_indices) for p in positions],
        ground_truth=None if row["mask"] is None else decode_mask(row["mask"], row["image_id"]),
    )
