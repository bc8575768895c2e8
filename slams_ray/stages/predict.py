"""Masks for new photographs from a trained network, in this process and without Ray."""

import io
import json
import logging

import numpy as np
from PIL import Image

from slams_ray import storage
from slams_ray.config import InferenceConfig
from slams_ray.data.image import IMAGE_SUFFIXES, decode_image, encode_mask, read_file
from slams_ray.data.schema import voc_palette
from slams_ray.errors import ArtifactError, DataError
from slams_ray.figures import overlay_labels
from slams_ray.models.checkpoint import network_class_names
from slams_ray.runtime.progress import Progress
from slams_ray.stages.evaluate import make_predictor
from slams_ray.stages.pipeline import SUMMARY_NAME
from slams_ray.stages.train_segmentation import STAGE as TRAIN_SEGMENTATION
from slams_ray.stages.training import MODEL_NAME

logger = logging.getLogger(__name__)


def run(model: str, images: str, output: str, config: InferenceConfig) -> int:
    """Writes `<name>.png` (palette mask) and `<name>_overlay.jpg`; names and skips bad images.

    Args:
        model: a checkpoint, or the workspace of a finished pipeline.
        images: directory of photographs.

    Returns:
        number of masks written.
    """
    path = find_model(model)
    palette = voc_palette(len(network_class_names(storage.read_bytes(path), path)))
    predictor = make_predictor(path, config, None)
    names = [n for n in storage.list_names(images) if n.lower().endswith(IMAGE_SUFFIXES)]
    if not names:
        raise DataError(f"{images} holds no image; expected {', '.join(IMAGE_SUFFIXES)}")
    progress = Progress("predict", len(names), "images")
    num_written = 0
    for number, name in enumerate(names, start=1):
        source = storage.join(images, name)
        try:
            image = decode_image(read_file(source), source)
        except DataError as error:
            logger.warning("skipped: %s", error)
            continue
        labels = predictor.predict(image)
        target = storage.join(output, name.rsplit(".", 1)[0])
        storage.write_bytes(f"{target}.png", encode_mask(labels, palette))
        storage.write_bytes(f"{target}_overlay.jpg", _jpeg(overlay_labels(image, labels, palette)))
        num_written += 1
        progress.advance(number)
    logger.info("%d masks in %s, %d images skipped", num_written, output, len(names) - num_written)
    return num_written


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


def _jpeg(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="JPEG", quality=92)
    return buffer.getvalue()
