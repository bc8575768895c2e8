"""Predicts masks of new photographs with a trained network, in this process without Ray."""

import json
import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from slams_ray import storage
from slams_ray.artifacts import read_record
from slams_ray.config import InferenceConfig, PredictionCrfConfig
from slams_ray.data.image import (
    IMAGE_SUFFIXES,
    decode_image,
    decode_upright,
    encode_jpeg,
    encode_mask,
    read_file,
    resize,
    store_image,
)
from slams_ray.data.schema import voc_palette
from slams_ray.errors import ArtifactError, ConfigError, DataError
from slams_ray.figures.montage import overlay_labels
from slams_ray.inference.predictors import SegmentationPredictor
from slams_ray.networks.checkpoint import inference_settings, network_class_names
from slams_ray.runtime.progress import Progress
from slams_ray.stages.evaluate import STAGE as EVALUATE
from slams_ray.stages.evaluate import make_predictor
from slams_ray.stages.summary import SUMMARY_NAME
from slams_ray.stages.train_segmentation import STAGE as TRAIN_SEGMENTATION
from slams_ray.stages.training import MODEL_NAME

logger = logging.getLogger(__name__)

SETTINGS = ("scales", "flip", "precision", "max_side_px")
"""Settings that can differ from those of the evaluation."""
CRF_ITERATIONS = 10


@dataclass(frozen=True, kw_only=True)
class Model:
    """A trained network.

    Attributes:
        path: path of its checkpoint.
        scored_with: the `SETTINGS` of its finished evaluation; None if there is no evaluation, and
            the settings are those in the checkpoint.
    """

    path: str
    scored_with: Mapping[str, Any] | None = None


def run(model: str, images: str, output: str, *, crf: bool = False, **changes: Any) -> int:
    """Writes `<name>.png` (palette mask) and `<name>_overlay.jpg` for each image.

    Size, scales and precision are those of the evaluation. Bad images are logged and skipped.

    Args:
        model: a checkpoint, or the workspace of a finished pipeline.
        images: directory of photographs. They are turned upright by their EXIF orientation.
        output: directory for the masks.
        crf: whether DeepLab's CRF of test time refines the masks.
        changes: values for any of `SETTINGS`; None keeps a setting.

    Returns:
        number of masks written.
    """
    found = find_model(model)
    data = storage.read_bytes(found.path)
    asked = {name: value for name, value in changes.items() if value is not None}
    settings = dict(found.scored_with or {})
    if not settings and asked.keys() < set(SETTINGS):
        settings = inference_settings(data, found.path)
    settings |= asked
    max_side_px = settings.pop("max_side_px")
    settings["scales"] = tuple(settings["scales"])
    palette = voc_palette(len(network_class_names(data, found.path)))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    refined = PredictionCrfConfig(iterations=CRF_ITERATIONS) if crf else None
    predictor = make_predictor(found.path, InferenceConfig(**settings), None, device, refined)
    names = _image_names(images, output)
    progress = Progress("predict", len(names), "images")
    num_written = 0
    for number, name in enumerate(names, start=1):
        source = storage.join(images, name)
        try:
            encoded = read_file(source)
            labels = predict_image(predictor, encoded, source, max_side_px)
        except DataError as error:
            logger.warning("skipped: %s", error)
            continue
        target = storage.join(output, name.rsplit(".", 1)[0])
        storage.write_bytes(f"{target}.png", encode_mask(labels, palette))
        overlay = overlay_labels(decode_upright(encoded, source), labels, palette)
        storage.write_bytes(f"{target}_overlay.jpg", encode_jpeg(overlay))
        num_written += 1
        progress.advance(number)
    logger.info("%d masks in %s, %d images skipped", num_written, output, len(names) - num_written)
    return num_written


def predict_image(
    predictor: SegmentationPredictor, encoded: bytes, source: str, max_side_px: int | None
) -> np.ndarray:
    """Returns (H, W) uint8 labels at the size of the upright image.

    Labels are predicted at the size that a shard would store, and enlarged if it is smaller.
    """
    image = store_image(encoded, source, upright=True, max_side_px=max_side_px)
    labels = predictor.predict(decode_image(image.data, source))
    if image.size == image.full_size:
        return labels
    height, width = image.full_size
    return resize(labels, (width, height), Image.Resampling.NEAREST)


def _image_names(images: str, output: str) -> list[str]:
    names = [n for n in storage.list_names(images) if n.lower().endswith(IMAGE_SUFFIXES)]
    if not names:
        raise DataError(f"{images} holds no image; expected {', '.join(IMAGE_SUFFIXES)}")
    if storage.absolute(images) == storage.absolute(output):
        raise ConfigError(
            f"output is {output}, the directory of the images: masks would overwrite them"
        )
    stems = Counter(name.rsplit(".", 1)[0] for name in names)
    stem, times = stems.most_common(1)[0]
    if times > 1:
        raise DataError(f"{images} holds two images called {stem!r}: rename one")
    return names


def find_model(model: str) -> Model:
    """Finds the checkpoint at a path, or the one that the summary of a workspace names.

    Raises:
        ArtifactError: there is neither.
    """
    if storage.exists(model):
        return Model(path=model)
    summary = storage.join(model, SUMMARY_NAME)
    if not storage.exists(summary):
        raise ArtifactError(
            f"{model} is neither a checkpoint nor the workspace of a finished pipeline: give "
            "model.pt of a train_segmentation stage, or a workspace with summary.json"
        )
    stages = json.loads(storage.read_bytes(summary))["stages"]
    outputs = {stage["stage"]: stage["output"] for stage in stages}
    record = read_record(outputs[EVALUATE]) if EVALUATE in outputs else None
    scored_with = None if record is None else {name: record.config[name] for name in SETTINGS}
    return Model(
        path=storage.join(outputs[TRAIN_SEGMENTATION], MODEL_NAME), scored_with=scored_with
    )
