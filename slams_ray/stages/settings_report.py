"""Pictures of a chosen refinement: where its strengths lie on the curve, and what others give."""

import numpy as np

from slams_ray import storage
from slams_ray.data.image import decode_image, decode_mask
from slams_ray.data.source import TRAIN
from slams_ray.data.stored_maps import unpack_maps, upsample_stored
from slams_ray.figures.canvas import to_png
from slams_ray.figures.montage import SettingsExample, settings_figure
from slams_ray.figures.scores import threshold_figure
from slams_ray.refinement.pseudo_label import (
    Confidence,
    Refinement,
    labels_of_present,
    refined_positions,
)
from slams_ray.stages import search_threshold
from slams_ray.stages.examples import choose_examples
from slams_ray.stages.infer_activation import activations_dir
from slams_ray.stages.prepare import PreparedData
from slams_ray.stages.stage import Attempt, Result
from slams_ray.training.data_loading import ShardColumns
from slams_ray.training.task import Row

CURVE_NAME = "threshold_curve.png"
MONTAGE_NAME = "settings.png"
THRESHOLD_STEP = 0.25
ALPHA_FACTOR = 3.0


def show_settings(
    attempt: Attempt,
    data: PreparedData,
    activations: Result,
    threshold: Result,
    method: str,
    refinement: Refinement,
    confidence: Confidence,
    num_examples: int,
) -> None:
    """Draws and tracks the curve with the confident pair, and the labels at the chosen strength
    beside those at one too low and one too high.
    """
    pictures = {}
    curves = search_threshold.read_curves(threshold)
    if curves:
        # Alphas have no place on an axis of thresholds.
        pair = (confidence.lenient, confidence.strict) if refinement.form != "power" else None
        free = search_threshold.label_free_choices(threshold)
        pictures[CURVE_NAME] = threshold_figure(curves, free, pair)
    rows = choose_examples(data.names(TRAIN), _sources(data, activations, method), num_examples)
    if rows:
        cuts = strengths_around(refinement.form, confidence.chosen)
        what = "alpha" if refinement.form == "power" else "threshold"
        titles = [
            f"{what} {cut:.2f}\n{name}"
            for cut, name in zip(cuts, ("too low", "chosen", "too high"), strict=True)
        ]
        examples = [_example(row, method, refinement, cuts) for row in rows]
        pictures[MONTAGE_NAME] = settings_figure(data.description, titles, examples)
    for name, figure in pictures.items():
        path = storage.join(attempt.output_dir, name)
        storage.write_bytes(path, to_png(figure))
        attempt.run.log_file(path)


def strengths_around(form: str, chosen: float) -> tuple[float, float, float]:
    """A background threshold or alpha too low, the chosen one, and one too high."""
    if form == "power":
        return chosen / ALPHA_FACTOR, chosen, chosen * ALPHA_FACTOR
    low, high = np.clip([chosen - THRESHOLD_STEP, chosen + THRESHOLD_STEP], 0.02, 0.98)
    return float(low), chosen, float(high)


def _sources(data: PreparedData, activations: Result, method: str) -> list[ShardColumns]:
    return [
        ShardColumns(directory=data.images(TRAIN), columns=("image", "mask", "image_labels")),
        ShardColumns(directory=activations_dir(activations.output_dir), columns=(method,)),
    ]


def _example(
    row: Row, method: str, refinement: Refinement, cuts: tuple[float, ...]
) -> SettingsExample:
    image = decode_image(row["image"], row["image_id"])
    class_indices = np.asarray(row["image_labels"], np.int64)
    stored = unpack_maps(row[method], class_indices, *image.shape[:2])
    activation = upsample_stored(stored, image.shape[:2])
    positions = refined_positions(image, activation, class_indices, cuts, refinement)
    return SettingsExample(
        image_id=row["image_id"],
        image=image,
        labels=[labels_of_present(p, class_indices) for p in positions],
        ground_truth=None if row["mask"] is None else decode_mask(row["mask"], row["image_id"]),
    )
