"""Masks for new photographs from a trained network, in this process and without Ray."""

import json
import logging

import numpy as np
import torch
from PIL import Image

from slams_ray import storage
from slams_ray.config import InferenceConfig
from slams_ray.data.image import (
    IMAGE_SUFFIXES,
    decode_upright,
    encode_jpeg,
    encode_mask,
    read_file,
    resize,
    shrunk_size,
)
from slams_ray.data.schema import voc_palette
from slams_ray.errors import ArtifactError, ConfigError, DataError
from slams_ray.figures.montage import overlay_labels
from slams_ray.models.checkpoint import network_class_names
from slams_ray.predictors import SegmentationPredictor
from slams_ray.runtime.progress import Progress
from slams_ray.stages.evaluate import make_predictor
from slams_ray.stages.pipeline import SUMMARY_NAME
from slams_ray.stages.train_segmentation import STAGE as TRAIN_SEGMENTATION
from slams_ray.stages.training import MODEL_NAME

logger = logging.getLogger(__name__)


def run(
    model: str, images: str, output: str, config: InferenceConfig, max_side_px: int | None = None
) -> int:
    """Writes `<name>.png` (palette mask) and `<name>_overlay.jpg`; names and skips bad images.

    Args:
        model: a checkpoint, or the workspace of a finished pipeline.
        images: directory of photographs, turned upright by their EXIF orientation.
        max_side_px: larger images are segmented at this length of their longer side.

    Returns:
        number of masks written.
    """
    path = find_model(model)
    palette = voc_palette(len(network_class_names(storage.read_bytes(path), path)))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    predictor = make_predictor(path, config, None, device)
    names = _image_names(images, output)
    progress = Progress("predict", len(names), "images")
    num_written = 0
    for number, name in enumerate(names, start=1):
        source = storage.join(images, name)
        try:
            image = decode_upright(read_file(source), source)
        except DataError as error:
            logger.warning("skipped: %s", error)
            continue
        labels = _predict(predictor, image, max_side_px)
        target = storage.join(output, name.rsplit(".", 1)[0])
        storage.write_bytes(f"{target}.png", encode_mask(labels, palette))
        storage.write_bytes(
            f"{target}_overlay.jpg", encode_jpeg(overlay_labels(image, labels, palette))
        )
        num_written += 1
        progress.advance(number)
    logger.info("%d masks in %s, %d images skipped", num_written, output, len(names) - num_written)
    return num_written


def _predict(
    predictor: SegmentationPredictor, image: np.ndarray, max_side_px: int | None
) -> np.ndarray:
    """(H, W) labels at the size of the image, whatever size they were predicted at."""
    height, width = image.shape[:2]
    small_height, small_width = shrunk_size((height, width), max_side_px)
    if (small_height, small_width) == (height, width):
        return predictor.predict(image)
    small = resize(image, (small_width, small_height), Image.Resampling.LANCZOS)
    return resize(predictor.predict(small), (width, height), Image.Resampling.NEAREST)


def _image_names(images: str, output: str) -> list[str]:
    names = [n for n in storage.list_names(images) if n.lower().endswith(IMAGE_SUFFIXES)]
    if not names:
        raise DataError(f"{images} holds no image; expected {', '.join(IMAGE_SUFFIXES)}")
    if storage.absolute(images) == storage.absolute(output):
        raise ConfigError(f"output is {output}, where the images are: masks would overwrite them")
    stems = [name.rsplit(".", 1)[0] for name in names]
    twice = [stem for stem in stems if stems.count(stem) > 1]
    if twice:
        raise DataError(f"{images} holds two images called {twice[0]!r}: rename one")
    return names


def find_model(model: str) -> str:
    """The checkpoint itself, or the one the summary of a workspace names.

    Raises:
        ArtifactError: neither is there.
    """
    if storage.exists(model):
        return model
    summary = storage.join(model, SUMMARY_NAME)
    if not storage.exists(summary):
        raise ArtifactError(
            f"{model} is neither a checkpoint nor the workspace of a finished pipeline: give "
            "model.pt of a train_segmentation stage, or a workspace with summary.json"
        )
    stages = json.loads(storage.read_bytes(summary))["stages"]
    return next(
        storage.join(s["output"], MODEL_NAME) for s in stages if s["stage"] == TRAIN_SEGMENTATION
    )
