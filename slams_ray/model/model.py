"""A trained segmentation network, applied to photographs in this process without Ray."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar, overload

import numpy as np
import torch
from PIL import Image

from slams_ray import storage
from slams_ray.config import InferenceConfig, PredictionCrfConfig
from slams_ray.config.checks import check
from slams_ray.data.image import (
    ImageLimits,
    decode_image,
    decode_turned,
    encode_mask,
    read_file,
    resize,
    shrink,
    to_rgb,
    turned_upright,
)
from slams_ray.data.schema import voc_palette
from slams_ray.errors import DataError
from slams_ray.figures.montage import overlay_labels
from slams_ray.inference.segmentation_predictor import SegmentationPredictor
from slams_ray.model.checkpoint import find_checkpoint
from slams_ray.model.limits import photograph_limits
from slams_ray.model.predictor import check_torch_device, make_predictor
from slams_ray.model.tiles import check_tile, predict_in_tiles
from slams_ray.networks.checkpoint import network_class_names

CRF_ITERATIONS = 10
Photograph = str | os.PathLike[str] | bytes | Image.Image | np.ndarray
"""A path or URI, encoded bytes, a Pillow image, or (H, W, 3) uint8 RGB."""
Kind = TypeVar("Kind", bound=Photograph)


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """The labels of one image.

    Attributes:
        labels: (H, W) uint8 class indices at the size of the upright image; 0 is background.
        confidence: (H, W) float32 in [0, 1], the network's probability of the chosen class: the
            mean softmax over scales and mirror images.
        class_names: (K,) names by class index.
        image: (H, W, 3) uint8, the upright image.
    """

    labels: np.ndarray
    confidence: np.ndarray
    class_names: tuple[str, ...]
    image: np.ndarray

    @property
    def palette(self) -> tuple[tuple[int, int, int], ...]:
        """(K,) RGB 0..255 of each class."""
        return voc_palette(len(self.class_names))

    def to_png(self) -> bytes:
        """Encodes the labels as palette PNG, whose pixels are class indices."""
        return encode_mask(self.labels, self.palette)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the labels as palette PNG to a path or URI.

        Raises:
            ConfigError: the path does not end in .png.
        """
        is_png = os.fspath(path).lower().endswith(".png")
        check(is_png, "path", os.fspath(path), "a name that ends in .png, the format of masks")
        storage.write_bytes(os.fspath(path), self.to_png())

    def overlay(self) -> np.ndarray:
        """Returns the image with the colours of its labels, (H, W, 3) uint8."""
        return overlay_labels(self.image, self.labels, self.palette)


class Decoded(NamedTuple):
    """A decoded image.

    Attributes:
        upright: (H, W, 3) uint8.
        stored: (H', W', 3) uint8, as a shard would store it: the same, or shrunk.
    """

    upright: np.ndarray
    stored: np.ndarray


class Model:
    """A trained segmentation network with the settings it was scored with.

    Args:
        class_names: (K,) names by class index, background first.
        max_side_px: longest side at which images are segmented; None keeps every size.
        tile_px: side of the tiles in which larger images are segmented; None takes images whole.
        max_image_pixels: largest number of pixels of an image.
    """

    def __init__(
        self,
        predictor: SegmentationPredictor,
        class_names: Sequence[str],
        max_side_px: int | None,
        tile_px: int | None = None,
        max_image_pixels: int = ImageLimits.max_pixels,
    ) -> None:
        check_tile(tile_px)
        self.limits = photograph_limits(max_image_pixels)
        self.predictor = predictor
        self.class_names = tuple(class_names)
        self.max_side_px = max_side_px
        self.tile_px = tile_px

    @overload
    def predict(self, image: Photograph) -> Prediction: ...

    @overload
    def predict(self, image: list[Kind] | tuple[Kind, ...]) -> list[Prediction]: ...

    def predict(
        self, image: Photograph | list[Kind] | tuple[Kind, ...]
    ) -> Prediction | list[Prediction]:
        """Segments an image, or each of a list of images.

        Files and Pillow images are turned upright by their EXIF orientation.

        Raises:
            DataError: an image is missing, truncated, too large, or of another type or shape.
        """
        if not isinstance(image, list | tuple):
            return next(self.predict_decoded([self._decoded(image)]))
        size = self.images_at_once
        groups = (image[start : start + size] for start in range(0, len(image), size))
        return [
            prediction
            for group in groups
            for prediction in self.predict_decoded([self._decoded(one) for one in group])
        ]

    @property
    def images_at_once(self) -> int:
        """Number of images that are decoded before they are segmented: those of a batch."""
        return self.predictor.batch_size if self.tile_px is None else 1

    def decode(self, data: bytes, source: str, limits: ImageLimits | None = None) -> Decoded:
        """Decodes an encoded image for `predict_decoded`.

        Args:
            source: name of the image, for messages.
            limits: None is the model's.

        Raises:
            DataError: the image is truncated, too large, or of another type.
        """
        return self._as_stored(*decode_turned(data, source, limits or self.limits))

    def predict_decoded(self, images: Sequence[Decoded]) -> Iterator[Prediction]:
        """Segments images, of which those of one size share a forward.

        Yields:
            a prediction at full size for each image, made when it is asked for.
        """
        segmented = self._segment([image.stored for image in images])
        for image, (labels, confidence) in zip(images, segmented, strict=True):
            yield self._at_full_size(labels, confidence, image.upright)

    def _decoded(self, image: Photograph) -> Decoded:
        if isinstance(image, str | os.PathLike):
            path = os.fspath(image)
            return self.decode(read_file(path, self.limits), path)
        if isinstance(image, bytes):
            return self.decode(image, "the image")
        if isinstance(image, Image.Image):
            return self._as_stored(*_pixels_of(image))
        pixels = _checked(image)
        return self._as_stored(pixels, pixels)

    def _as_stored(self, decoded: np.ndarray, upright: np.ndarray) -> Decoded:
        pixels, encoded = shrink(decoded, upright, self.max_side_px)
        if encoded is not None:
            pixels = decode_image(encoded, "the shrunk image", self.limits)
        return Decoded(upright=upright, stored=pixels)

    def _segment(self, images: Sequence[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
        if self.tile_px is None:
            return self.predictor.predict_each(images)
        predict = self.predictor.predict_with_confidence
        return [predict_in_tiles(predict, image, self.tile_px) for image in images]

    def _at_full_size(
        self, labels: np.ndarray, confidence: np.ndarray, image: np.ndarray
    ) -> Prediction:
        height, width = image.shape[:2]
        labels, confidence = (
            values
            if values.shape == (height, width)
            else resize(values, (width, height), Image.Resampling.NEAREST)
            for values in (labels, confidence)
        )
        return Prediction(
            labels=labels, confidence=confidence, class_names=self.class_names, image=image
        )


def _pixels_of(image: Image.Image) -> tuple[np.ndarray, np.ndarray]:
    """Returns the RGB pixels of a Pillow image, as stored and upright. Pillow reads them late."""
    try:
        return to_rgb(image), to_rgb(turned_upright(image))
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(
            f"the Pillow image {image!r} cannot be read ({error}): open it again, or replace its "
            "file"
        ) from error


def _checked(image: Any) -> np.ndarray:
    shape, dtype = getattr(image, "shape", None), getattr(image, "dtype", None)
    is_array = isinstance(image, np.ndarray) and image.ndim == 3 and image.size > 0
    if is_array and dtype == np.uint8 and image.shape[2] == 3:
        return image
    got = type(image).__name__ if shape is None else f"an array of {dtype} and shape {shape}"
    raise DataError(
        f"the image is {got}, expected a path, encoded bytes, a Pillow image, or a NumPy array of "
        "uint8 and shape (height, width, 3) in RGB: convert it"
    )


def load_model(
    model: str | os.PathLike[str],
    *,
    device: str | None = None,
    crf: bool = False,
    tile_px: int | None = None,
    batch_size: int | None = None,
    max_image_pixels: int = ImageLimits.max_pixels,
    **changes: Any,
) -> Model:
    """Loads a trained segmentation network.

    Args:
        model: see `find_model`.
        device: torch device, such as cpu or cuda; None is a GPU if there is one.
        crf: whether DeepLab's CRF of test time refines the labels.
        tile_px: side of the tiles in which larger images are segmented, a multiple of 32; None
            takes images whole.
        batch_size: images of one size that share a forward; None chooses by device.
        max_image_pixels: see `photograph_limits`.
        changes: see `find_checkpoint`, which also says what is raised.
    """
    found = find_checkpoint(model, changes)
    settings = dict(found.settings)
    max_side_px = settings.pop("max_side_px")
    settings["scales"] = tuple(settings["scales"])
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    check_torch_device(device)
    refined = PredictionCrfConfig(iterations=CRF_ITERATIONS) if crf else None
    inference = InferenceConfig(**settings)
    predictor = make_predictor(found.path, inference, None, device, refined, batch_size)
    class_names = network_class_names(found.data, found.path)
    return Model(predictor, class_names, max_side_px, tile_px, max_image_pixels)
