"""Measures the threshold curve against single evaluations, and shared against rebuilt lattices."""

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch

from slams_ray.benchmarks.harness.measure import Row, compare
from slams_ray.benchmarks.harness.pictures import HEIGHT, WIDTH, generated
from slams_ray.data.stored_maps import stored_size, upsample_stored
from slams_ray.metrics import IGNORE_INDEX, confusion_matrix
from slams_ray.refinement.crf.kernels import CrfKernels
from slams_ray.refinement.pseudo_label import Refinement, refined_positions
from slams_ray.seeds.seed import seed_labels
from slams_ray.seeds.threshold import (
    ThresholdCounts,
    count_thresholds,
    threshold_curve,
    threshold_grid,
)

NUM_ALL_CLASSES, NUM_LEVELS = 21, 256
KERNELS = CrfKernels(
    gaussian_sxy_px=3.0,
    gaussian_compat=3.0,
    bilateral_sxy_px=50.0,
    bilateral_srgb=5.0,
    bilateral_compat=10.0,
)
Image = tuple[np.ndarray, np.ndarray, np.ndarray]


def images(num_images: int, num_all_classes: int) -> list[Image]:
    """Generates stored maps, one to three classes each, and ground truth of VOC size."""
    rng = np.random.default_rng(0)
    made = []
    for number in range(num_images):
        classes = np.sort(rng.choice(np.arange(1, num_all_classes), 1 + number % 3, replace=False))
        size = stored_size(HEIGHT, WIDTH)
        maps = rng.integers(0, 256, (len(classes), *size)).astype(np.uint8)
        truth = rng.choice([0, 0, *classes, IGNORE_INDEX], (HEIGHT, WIDTH)).astype(np.uint8)
        made.append((maps, classes, truth))
    return made


def curve(data: Sequence[Image], num_all_classes: int, num_thresholds: int) -> np.ndarray:
    """Returns the mIoU of every threshold from one pass."""
    counts = ThresholdCounts.zeros(num_all_classes, num_thresholds)
    for maps, classes, truth in data:
        activation = upsample_stored(maps, truth.shape)
        counts = counts + count_thresholds(
            activation, classes, truth, num_all_classes, num_thresholds
        )
    return threshold_curve(counts).miou


def single(data: Sequence[Image], num_all_classes: int, threshold: float) -> np.ndarray:
    """Returns the confusion counts of one threshold, as the field's scripts do."""
    counts = np.zeros((num_all_classes, num_all_classes + 1), np.int64)
    for maps, classes, truth in data:
        labels = seed_labels(upsample_stored(maps, truth.shape), classes, threshold)
        counts += confusion_matrix(truth, labels, num_all_classes)
    return counts


def curve_rows(num_images: int, rounds: int, num_singles: int = 100) -> list[Row]:
    """Returns rows of the curve against one and many evaluations, and against fewer thresholds."""
    torch.set_num_threads(1)
    data = images(num_images, NUM_ALL_CLASSES)
    ours = partial(curve, data, NUM_ALL_CLASSES, NUM_LEVELS)
    one = partial(single, data, NUM_ALL_CLASSES, 0.3)

    def many() -> None:
        for threshold in threshold_grid(num_singles):
            single(data, NUM_ALL_CLASSES, threshold)

    name = f"threshold curve, {NUM_LEVELS} levels"
    return [
        compare(
            name, ours, f"{num_singles} single evaluations", many, goal=num_singles / 2, rounds=3
        ),
        compare(name, ours, "one single evaluation", one, goal=1 / 1.3, rounds=rounds),
        compare(
            "threshold curve, 4096 levels",
            partial(curve, data, NUM_ALL_CLASSES, 4096),
            "16 levels",
            partial(curve, data, NUM_ALL_CLASSES, 16),
            goal=1 / 1.3,
            rounds=rounds,
        ),
    ]


def lattice_row(num_thresholds: int, rounds: int) -> Row:
    """Returns the row of a CRF at several thresholds: one shared lattice against rebuilt ones."""
    # The image has noise like a photograph, because flat patches need few lattice vertices.
    image, _ = generated(1)[0]
    maps, _, _ = images(2, 4)[1]
    activation = upsample_stored(maps, (HEIGHT, WIDTH))
    refinement = Refinement(form="label", gt_prob=0.7, iterations=10, kernels=KERNELS)
    values = tuple(np.linspace(0.2, 0.6, num_thresholds).tolist())

    def shared() -> None:
        refined_positions(image, activation, values, refinement)

    def rebuilt() -> None:
        for value in values:
            refined_positions(image, activation, (value,), refinement)

    return compare(
        f"CRF over {num_thresholds} thresholds, one lattice",
        shared,
        "a lattice for each",
        rebuilt,
        goal=1.4,
        rounds=rounds,
    )
