"""Encoded images and masks to arrays and back; decoding is bounded and refuses truncated files."""

import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps

from slams_ray import storage
from slams_ray.errors import DataError
from slams_ray.metrics import IGNORE_INDEX

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
IGNORE_COLOUR = (224, 224, 192)


@dataclass(frozen=True, kw_only=True)
class ImageLimits:
    """What is read of an image file, and decoded of an image, at most."""

    max_bytes: int = 64 * 2**20
    max_pixels: int = 64_000_000


DEFAULT_LIMITS = ImageLimits()


def read_file(path: str, limits: ImageLimits = DEFAULT_LIMITS) -> bytes:
    """The bytes of an image file, with an upper bound."""
    size = storage.size_bytes(path)
    if size is None:
        raise DataError(f"{path} is missing: put it there, or leave it out of the list")
    if size > limits.max_bytes:
        raise DataError(
            f"{path} has {size} bytes, at most {limits.max_bytes} are read (data.max_image_bytes)"
        )
    return storage.read_bytes(path)


def open_bounded(data: bytes, source: str, limits: ImageLimits = DEFAULT_LIMITS) -> Image.Image:
    """Opens and fully decodes an image; grayscale, palette and CMYK stay as they are."""
    try:
        with warnings.catch_warnings():
            # Our own bound, below, is stricter and an error.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data), formats=_FORMATS)
        if image.width * image.height > limits.max_pixels:
            raise DataError(
                f"{source} is {image.width} x {image.height}, at most {limits.max_pixels} pixels "
                "are decoded (data.max_image_pixels)"
            )
        image.load()
    except Image.DecompressionBombError as error:
        # Pillow's own bound, which some formats would otherwise pass while they open.
        raise DataError(
            f"{source} is too large ({error}), at most {limits.max_pixels} pixels are decoded "
            "(data.max_image_pixels)"
        ) from error
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(
            f"{source} ({len(data)} bytes) is truncated or not an image: {error}. "
            "Replace it, or set data.on_bad_image to skip"
        ) from error
    return image


def decode_image(data: bytes, source: str, limits: ImageLimits = DEFAULT_LIMITS) -> np.ndarray:
    """(H, W, 3) uint8 RGB of an encoded image of any colour mode, as stored."""
    return to_rgb(open_bounded(data, source, limits))


def decode_upright(data: bytes, source: str, limits: ImageLimits = DEFAULT_LIMITS) -> np.ndarray:
    """As `decode_image`, turned by the EXIF orientation that cameras write."""
    return to_rgb(ImageOps.exif_transpose(open_bounded(data, source, limits)))


def to_rgb(image: Image.Image) -> np.ndarray:
    """(H, W, 3) uint8 of a decoded image of any colour mode."""
    if image.mode.startswith("I;16"):
        # PIL would clip 16-bit gray to white.
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def shrunk_size(size: tuple[int, int], max_side_px: int | None) -> tuple[int, int]:
    """A size, in either order, with its longer side at most max_side_px."""
    longer = max(size)
    if max_side_px is None or longer <= max_side_px:
        return size
    return tuple(max(1, round(side * max_side_px / longer)) for side in size)  # type: ignore[return-value]


def resize(pixels: np.ndarray, size: tuple[int, int], resampling: Image.Resampling) -> np.ndarray:
    """(H, W[, 3]) uint8 at another (width, height)."""
    return np.asarray(Image.fromarray(pixels).resize(size, resampling))


@dataclass(frozen=True, kw_only=True)
class StoredImage:
    """An image as shards hold it.

    Attributes:
        data: its encoded bytes, re-encoded only where it was turned or made smaller.
        size: (height, width) of those.
        full_size: (height, width) before it was made smaller.
    """

    data: bytes
    size: tuple[int, int]
    full_size: tuple[int, int]


def store_image(
    data: bytes,
    source: str,
    *,
    upright: bool,
    max_side_px: int | None,
    limits: ImageLimits = DEFAULT_LIMITS,
) -> StoredImage:
    """What training, scoring and prediction see of an encoded image: the same pixels for all.

    Args:
        upright: turn it by its EXIF orientation.
        max_side_px: a longer side is reduced to this length; None keeps every size.

    Raises:
        DataError: the bytes are truncated, no image, or an image beyond the limits.
    """
    stored = decode_image(data, source, limits)
    image = decode_upright(data, source, limits) if upright else stored
    full_size = image.shape[:2]
    height, width = shrunk_size(full_size, max_side_px)
    if (height, width) != full_size:
        image = resize(image, (width, height), Image.Resampling.LANCZOS)
    if image is not stored and not np.array_equal(image, stored):
        data = encode_jpeg(image)
    return StoredImage(data=data, size=(height, width), full_size=full_size)


def encode_jpeg(pixels: np.ndarray) -> bytes:
    """JPEG of an (H, W, 3) uint8 image."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="JPEG", quality=92)
    return buffer.getvalue()


def decode_mask(data: bytes, source: str, limits: ImageLimits = DEFAULT_LIMITS) -> np.ndarray:
    """(H, W) uint8 indices of an 8-bit palette or grayscale PNG."""
    image = open_bounded(data, source, limits)
    if image.mode not in ("P", "L", "1"):
        raise DataError(
            f"mask {source} has mode {image.mode}, expected an 8-bit palette or grayscale PNG "
            "whose pixels are class indices"
        )
    return np.asarray(image, dtype=np.uint8)


def image_suffix(data: bytes) -> str:
    """File name ending of encoded bytes: jpg, png, webp or bmp."""
    with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
        return {"JPEG": "jpg"}.get(str(image.format), str(image.format).lower())


def encode_mask(mask: np.ndarray, palette: Sequence[Sequence[int]]) -> bytes:
    """Palette PNG of an (H, W) uint8 label map: viewers show colours, code reads indices."""
    image = Image.fromarray(mask, mode="L")
    colours = np.zeros((256, 3), np.uint8)
    colours[: len(palette)] = palette
    colours[IGNORE_INDEX] = IGNORE_COLOUR
    image.putpalette(colours.tobytes())
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def check_mask(mask: np.ndarray, size: tuple[int, int], num_indices: int, source: str) -> None:
    """Raises DataError for a mask of another size than its image or with an unknown index."""
    if mask.shape != size:
        raise DataError(f"mask {source} is {mask.shape}, but its image is {size} (height, width)")
    found = np.unique(mask)
    unknown = found[(found >= num_indices) & (found != IGNORE_INDEX)]
    if unknown.size:
        raise DataError(
            f"mask {source} holds index {unknown[0]}, expected 0..{num_indices - 1} or "
            f"{IGNORE_INDEX}"
        )
