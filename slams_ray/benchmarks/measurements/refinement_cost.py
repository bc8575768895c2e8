"""CPU seconds that each refinement takes for an image of COCO's usual size."""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import torch
from PIL import Image

from slams_ray.benchmarks.harness.measure import Row, row
from slams_ray.benchmarks.harness.pictures import generated, resized
from slams_ray.benchmarks.measurements.crf import GT_PROB, ITERATIONS
from slams_ray.benchmarks.measurements.threshold import KERNELS
from slams_ray.data.stored_maps import stored_size, upsample_stored
from slams_ray.refinement.maps import PixelAdaptiveRefinement, to_levels
from slams_ray.refinement.pseudo_label import ConfidentPair, Refinement, refine
from slams_ray.refinement.walk.propagation import Walk, scaled_steps

HEIGHT, WIDTH = 480, 640
NUM_IMAGES, NUM_CORES = 118_000, 100
"""Training images of COCO, and cores of a cluster that refines them."""
NUM_STEPS, NUM_ROUNDS, BETA = 256, 10, 8.0
PAIR = ConfidentPair(background=0.2, chosen=0.3, foreground=0.4)
Refine = Callable[[np.ndarray, np.ndarray, np.ndarray], object]
"""(H, W, 3) image, (h, w) edges and (P, h, w) stored maps to anything."""


def cost_rows(nums_classes: Sequence[int], photos_dir: str | None, rounds: int) -> list[Row]:
    """Returns a row for each refinement and number of classes: seconds that would be an hour.

    The walk gets its edges, which a network finds elsewhere. The CRF makes labels at three
    thresholds, as the stage does.

    Args:
        photos_dir: directory with JPEG files, which are resized; None takes a generated image.
        rounds: number of images, each measured once.
    """
    torch.set_num_threads(1)
    images = _images(photos_dir, rounds)
    kinds: Mapping[str, Refine] = {
        "crf": _label,
        "walk": _walk,
        "walk and crf": lambda image, edge, maps: _label(image, edge, _walk(image, edge, maps)),
        "pixel_adaptive": _adapt,
    }
    return [
        _row(name, num_classes, [partial(kind, *_inputs(image, num_classes)) for image in images])
        for name, kind in kinds.items()
        for num_classes in nums_classes
    ]


def _row(name: str, num_classes: int, works: Sequence[Callable[[], object]]) -> Row:
    works[0]()
    found = []
    for work in works:
        start = time.process_time()
        work()
        found.append(time.process_time() - start)
    seconds = median(found)
    hours = seconds * NUM_IMAGES / NUM_CORES / 3600
    in_an_hour = 3600 * NUM_CORES / NUM_IMAGES
    return row(
        f"{name}, {num_classes} classes, {WIDTH} x {HEIGHT}: {seconds:.3f} CPU s an image",
        f"{NUM_IMAGES} images in an hour on {NUM_CORES} cores (it takes {hours:.2f} hours)",
        [in_an_hour / value for value in found],
        goal=0,
    )


def _images(photos_dir: str | None, number: int) -> list[np.ndarray]:
    if photos_dir is None:
        return [image for image, _ in generated(number, HEIGHT, WIDTH)]
    paths = sorted(Path(photos_dir).glob("*.jpg"))[:number]
    return [
        resized(np.array(Image.open(p).convert("RGB")), HEIGHT, WIDTH, Image.Resampling.BICUBIC)
        for p in paths
    ]


def _inputs(image: np.ndarray, num_classes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The image, random edges of which few are strong, and smooth random maps."""
    rng = np.random.default_rng(num_classes)
    height, width = stored_size(HEIGHT, WIDTH)
    coarse = rng.random((num_classes, 6, 8)).astype(np.float32) ** 2
    smooth = [resized(one, height, width, Image.Resampling.BICUBIC) for one in coarse]
    maps = np.stack([one.clip(0) / one.max() for one in smooth])
    return image, rng.random((height, width), np.float32) ** 3, to_levels(maps)


def _label(image: np.ndarray, edge: np.ndarray, maps: np.ndarray) -> tuple[np.ndarray, ...]:
    refinement = Refinement(form="label", gt_prob=GT_PROB, iterations=ITERATIONS, kernels=KERNELS)
    activation = upsample_stored(maps, (HEIGHT, WIDTH))
    return refine(image, activation, np.arange(1, len(maps) + 1), PAIR, refinement)


def _walk(image: np.ndarray, edge: np.ndarray, maps: np.ndarray) -> np.ndarray:
    steps = scaled_steps(NUM_STEPS, (edge.shape[0], edge.shape[1]))
    return to_levels(Walk(edge, BETA).propagate(maps, [steps])[0])


def _adapt(image: np.ndarray, edge: np.ndarray, maps: np.ndarray) -> np.ndarray:
    return PixelAdaptiveRefinement(NUM_ROUNDS, torch.device("cpu"))(image, maps)
