"""Predicts masks of new photographs with a trained network, in this process without Ray."""

import logging
from collections import Counter
from typing import Any

from slams_ray import storage
from slams_ray.data.image import IMAGE_SUFFIXES, encode_jpeg
from slams_ray.errors import ConfigError, DataError
from slams_ray.model.model import load_model
from slams_ray.runtime.progress import Progress

logger = logging.getLogger(__name__)


def run(model: str, images: str, output: str, *, crf: bool = False, **changes: Any) -> int:
    """Writes `<name>.png` (palette mask) and `<name>_overlay.jpg` for each image.

    Size, scales and precision are those of the evaluation. Bad images are logged and skipped.

    Args:
        model: a checkpoint, the workspace of a finished pipeline, or an MLflow model.
        images: directory of photographs. They are turned upright by their EXIF orientation.
        output: directory for the masks.
        crf: whether DeepLab's CRF of test time refines the masks.
        changes: values for any of `source.SETTINGS`; None keeps a setting.

    Returns:
        number of masks written.
    """
    loaded = load_model(model, crf=crf, **changes)
    names = _image_names(images, output)
    progress = Progress("predict", len(names), "images")
    num_written = 0
    for number, name in enumerate(names, start=1):
        try:
            found = loaded.predict(storage.join(images, name))
        except DataError as error:
            logger.warning("skipped: %s", error)
            continue
        target = storage.join(output, name.rsplit(".", 1)[0])
        found.save(f"{target}.png")
        storage.write_bytes(f"{target}_overlay.jpg", encode_jpeg(found.overlay()))
        num_written += 1
        progress.advance(number)
    logger.info("%d masks in %s, %d images skipped", num_written, output, len(names) - num_written)
    return num_written


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
