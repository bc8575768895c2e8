"""Measures our dense CRFs against pydensecrf: time, shared lattices and agreement."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import get_args

import numpy as np
import torch
from PIL import Image

from slams_ray.benchmarks.harness.measure import Row, compare, row
from slams_ray.benchmarks.harness.pictures import Picture, resized
from slams_ray.benchmarks.measurements.threshold import KERNELS
from slams_ray.metrics import IGNORE_INDEX, confusion_matrix, segmentation_scores
from slams_ray.refinement.crf.backends import Backend, make_crf
from slams_ray.refinement.crf.kernels import CrfKernels
from slams_ray.refinement.crf.unary import label_unary

ITERATIONS, GT_PROB = 10, 0.7
SOFTMAX_KERNELS = CrfKernels(
    gaussian_sxy_px=3.0,
    gaussian_compat=3.0,
    bilateral_sxy_px=80.0,
    bilateral_srgb=13.0,
    bilateral_compat=10.0,
)
NUM_ALL_CLASSES = 21
_OURS: tuple[Backend, ...] = ("numba", "torch")
_ON_CPUS: tuple[Backend, ...] = ("pydensecrf", "numba")


def degraded(truth: np.ndarray, classes: np.ndarray, seed: int) -> np.ndarray:
    """Returns (H, W) label positions like those of a seed: stride 16, 1/8 of the cells wrong."""
    rng = np.random.default_rng(seed)
    positions = np.searchsorted(classes, truth) + 1
    positions[~np.isin(truth, classes)] = 0
    coarse = positions[8::16, 8::16]
    wrong = rng.integers(0, len(classes) + 1, coarse.shape)
    coarse = np.where(rng.random(coarse.shape) < 0.125, wrong, coarse).astype(np.uint8)
    return resized(coarse, truth.shape[0], truth.shape[1], Image.Resampling.NEAREST)


def refined(
    backend: Backend, image: np.ndarray, unaries: Sequence[np.ndarray], kernels: CrfKernels
) -> list[np.ndarray]:
    """Returns (H, W) label positions for each (L, H, W) unary, from one lattice."""
    device = "cuda" if backend == "torch" and torch.cuda.is_available() else "cpu"
    crf = make_crf(backend, image, len(unaries[0]), kernels, device)
    return list(crf.label_all(unaries, ITERATIONS))


def speed_rows(
    pictures: Sequence[Picture], rounds: int, field_labels: Sequence[int] = (21, 81)
) -> list[Row]:
    """Returns rows of building and inference against pydensecrf, with few labels and with all."""

    def work(backend: Backend, num_labels: int, kernels: CrfKernels) -> None:
        for image, _ in pictures:
            refined(backend, image, [_stripes(image, num_labels)], kernels)

    rows = [
        compare(
            f"numba CRF, {num_labels} labels, {form} form",
            partial(work, "numba", num_labels, kernels),
            f"pydensecrf, {num_labels} labels",
            partial(work, "pydensecrf", num_labels, kernels),
            goal=2.0,
            rounds=rounds,
        )
        for form, kernels in (("label", KERNELS), ("softmax", SOFTMAX_KERNELS))
        for num_labels in (2, 3, 4)
    ]
    rows += [
        compare(
            "numba CRF, 3 labels, label form",
            partial(work, "numba", 3, KERNELS),
            f"pydensecrf, {num_labels} labels",
            partial(work, "pydensecrf", num_labels, KERNELS),
            goal=3.0,
            rounds=max(1, rounds // 3),
        )
        for num_labels in field_labels
    ]
    return [*rows, _torch_row(pictures, work, rounds)]


def _torch_row(
    pictures: Sequence[Picture], work: Callable[[Backend, int, CrfKernels], None], rounds: int
) -> Row:
    """Returns the row of the torch CRF, on a GPU if there is one. On a CPU, the row has no goal."""
    on_gpu = torch.cuda.is_available()
    return compare(
        f"torch CRF on a {'GPU' if on_gpu else 'CPU'}, 3 labels, label form",
        partial(work, "torch", 3, KERNELS),
        "pydensecrf, 3 labels",
        partial(work, "pydensecrf", 3, KERNELS),
        goal=20.0 if on_gpu else 0.0,
        rounds=rounds,
        clock=time.perf_counter if on_gpu else time.process_time,
    )


def sharing_rows(pictures: Sequence[Picture], num_unaries: int, rounds: int) -> list[Row]:
    """Returns rows of several unaries on one lattice, against one lattice per unary."""
    work = [
        (image, [np.roll(_stripes(image, 3), 9 * i, axis=2) for i in range(num_unaries)])
        for image, _ in pictures
    ]

    def shared(backend: Backend) -> None:
        for image, unaries in work:
            refined(backend, image, unaries, KERNELS)

    def rebuilt(backend: Backend) -> None:
        for image, unaries in work:
            for unary in unaries:
                refined(backend, image, [unary], KERNELS)

    return [
        compare(
            f"{backend} CRF of {num_unaries} unaries, one lattice",
            partial(shared, backend),
            "a lattice for each",
            partial(rebuilt, backend),
            goal=1.4,
            rounds=rounds,
        )
        for backend in _ON_CPUS
    ]


def agreement_rows(pictures: Sequence[Picture]) -> list[Row]:
    """Returns rows of the share of pixels labelled as by pydensecrf, and of the ratio of mIoUs."""
    rows = []
    for form, kernels in (("label", KERNELS), ("softmax", SOFTMAX_KERNELS)):
        agreement: dict[str, list[float]] = {backend: [] for backend in _OURS}
        counts = dict.fromkeys(get_args(Backend), np.zeros((NUM_ALL_CLASSES, NUM_ALL_CLASSES + 1)))
        for seed, (image, truth) in enumerate(pictures):
            classes = np.setdiff1d(truth, [0, IGNORE_INDEX])
            if not len(classes):
                continue
            labels = degraded(truth, classes, seed)
            unary = label_unary(labels, len(classes) + 1, GT_PROB)
            found = {b: refined(b, image, [unary], kernels)[0] for b in counts}
            for backend in _OURS:
                is_equal = found[backend] == found["pydensecrf"]
                agreement[backend].append(float(is_equal.mean()))
            names = np.append(0, classes).astype(np.uint8)
            for backend, positions in found.items():
                counts[backend] = counts[backend] + confusion_matrix(
                    truth, names[positions], NUM_ALL_CLASSES
                )
        miou = {b: segmentation_scores(c.astype(np.int64)).miou for b, c in counts.items()}
        # The mIoU may be lower by 0.1 point.
        goal = 1 - 0.001 / miou["pydensecrf"]
        for backend in _OURS:
            ratio, shares = miou[backend] / miou["pydensecrf"], agreement[backend]
            name = f"{backend}, {form} kernels, {len(shares)} images:"
            rows += [
                _quality_row(
                    f"{name} pixels labelled alike", float(np.mean(shares)), 0.999, shares
                ),
                _quality_row(f"{name} mIoU", ratio, goal, [ratio]),
            ]
    return rows


def _quality_row(what: str, ratio: float, goal: float, values: list[float]) -> Row:
    against = "pydensecrf (no time: higher is closer)"
    return replace(row(what, against, [ratio], goal=goal), spread=(min(values), max(values)))


def _stripes(image: np.ndarray, num_labels: int) -> np.ndarray:
    """Returns the (L, H, W) energy of three vertical stripes, or of two for two labels."""
    height, width = image.shape[:2]
    labels = np.arange(width) * min(num_labels, 3) // width + np.zeros((height, 1), int)
    return label_unary(labels, num_labels, GT_PROB)
