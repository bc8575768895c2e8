"""Encoding and decoding of images and masks, with size limits; truncated files are errors."""

import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from slams_ray import storage
from slams_ray.errors import DataError
from slams_ray.metrics import IGNORE_INDEX

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
_SUFFIX_OF = {"JPEG": "jpg", "MPO": "jpg", "PNG": "png", "WEBP": "webp", "BMP": "bmp"}
"""Pillow's format -> suffix. MPO is a JPEG file with further pictures behind the first."""
_PNG_DEPTH_BYTE = 24
"""Position of the bit depth: behind the signature, the head of IHDR, width and height."""
IGNORE_COLOUR = (224, 224, 192)
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation -> what turns the image upright; 1 is upright."""


@dataclass(frozen=True, kw_only=True)
class ImageLimits:
    """Largest file size and largest number of pixels of an image.

    Attributes:
        bytes_remedy, pixels_remedy: setting with the limit, or what else helps, for messages.
    """

    max_bytes: int = 64 * 2**20
    max_pixels: int = 64_000_000
    bytes_remedy: str = "data.max_image_bytes"
    pixels_remedy: str = "data.max_image_pixels"


DEFAULT_LIMITS = ImageLimits()


def read_file(path: str, limits: ImageLimits = DEFAULT_LIMITS) -> bytes:
    """Reads an image file.

    Raises:
        DataError: the file is missing or larger than `limits.max_bytes`.
    """
    size = storage.size_bytes(path)
    if size is None:
        raise DataError(f"{path} is missing: add the file, or remove it from the list")
    if size > limits.max_bytes:
        raise DataError(
            f"{path} has {size} bytes, but the limit is {limits.max_bytes} ({limits.bytes_remedy})"
        )
    return storage.read_bytes(path)


def open_bounded(data: bytes, source: str, limits: ImageLimits = DEFAULT_LIMITS) -> Image.Image:
    """Opens and fully decodes an image, and keeps its colour mode.

    Raises:
        DataError: the image is truncated, of an unknown format, or has too many pixels.
    """
    try:
        with warnings.catch_warnings():
            # The limit below is lower than Pillow's, and an error.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data), formats=_FORMATS)
        if image.width * image.height > limits.max_pixels:
            raise DataError(
                f"{source} is {image.width} x {image.height}, but the limit is {limits.max_pixels} "
                f"pixels ({limits.pixels_remedy})"
            )
        image.load()
    except Image.DecompressionBombError as error:
        # Some formats decode while they open, so Pillow's own limit is reached first.
        raise DataError(
            f"{source} is too large ({error}): the limit is {limits.max_pixels} pixels "
            f"({limits.pixels_remedy})"
        ) from error
    except (OSError, SyntaxError, ValueError) as error:
        # Pillow would name the buffer in memory.
        is_unknown = isinstance(error, UnidentifiedImageError)
        reason = f"it is none of {', '.join(_FORMATS)}" if is_unknown else str(error)
        raise DataError(
            f"{source} ({len(data)} bytes) is truncated or not an image: {reason}. Replace it"
        ) from error
    return image


def decode_image(data: bytes, source: str, limits: ImageLimits = DEFAULT_LIMITS) -> np.ndarray:
    """Decodes an image of any colour mode to (H, W, 3) uint8 RGB; ignores its EXIF orientation."""
    return to_rgb(open_bounded(data, source, limits))


def decode_turned(
    data: bytes, source: str, limits: ImageLimits = DEFAULT_LIMITS
) -> tuple[np.ndarray, np.ndarray]:
    """Decodes as `decode_image`, without and with the EXIF orientation that cameras write.

    The result is one array twice if the orientation turns nothing.
    """
    image = open_bounded(data, source, limits)
    decoded = to_rgb(image)
    upright = turned_upright(image)
    return decoded, decoded if upright is image else to_rgb(upright)


def turned_upright(image: Image.Image) -> Image.Image:
    """Turns an image by its EXIF orientation; returns the image itself if there is none.

    `ImageOps.exif_transpose` writes the EXIF anew, and fails where an entry of it is broken.
    """
    try:
        turn = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:
        # The pixels are fine. Of broken EXIF Pillow raises whatever its parser meets.
        return image
    return image if turn is None else image.transpose(turn)


def to_rgb(image: Image.Image) -> np.ndarray:
    """Converts a decoded image of any colour mode to (H, W, 3) uint8 RGB."""
    if image.mode.startswith("I;16"):
        # Pillow clips 16-bit grey to white.
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def shrunk_size(size: tuple[int, int], max_side_px: int | None) -> tuple[int, int]:
    """Scales a size, in either order, so that its longer side has at most max_side_px pixels."""
    longer = max(size)
    if max_side_px is None or longer <= max_side_px:
        return size
    return tuple(max(1, round(side * max_side_px / longer)) for side in size)  # type: ignore[return-value]


def resize(pixels: np.ndarray, size: tuple[int, int], resampling: Image.Resampling) -> np.ndarray:
    """Resizes (H, W[, 3]) uint8, or (H, W) float32, to (width, height)."""
    return np.asarray(Image.fromarray(pixels).resize(size, resampling))


@dataclass(frozen=True, kw_only=True)
class StoredImage:
    """An image as it is stored in a shard.

    Attributes:
        data: encoded bytes, the original ones unless the image was rotated or shrunk.
        size: (height, width) of the stored image.
        full_size: (height, width) before shrinking.
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
    """Rotates and shrinks an encoded image, so that all stages use the same pixels.

    Args:
        upright: whether the EXIF orientation is applied.
        max_side_px: largest length of the longer side; None keeps every size.

    Raises:
        DataError: the bytes are truncated, not an image, or exceed the limits.
    """
    if upright:
        decoded, image = decode_turned(data, source, limits)
    else:
        decoded = image = decode_image(data, source, limits)
    pixels, changed = shrink(decoded, image, max_side_px)
    return StoredImage(
        data=data if changed is None else changed, size=pixels.shape[:2], full_size=image.shape[:2]
    )


def shrink(
    decoded: np.ndarray, image: np.ndarray, max_side_px: int | None
) -> tuple[np.ndarray, bytes | None]:
    """Shrinks an image as shards store it.

    Args:
        decoded: (H, W, 3) uint8 before the EXIF orientation was applied.
        image: (H, W, 3) or (W, H, 3) uint8 after it was applied.
        max_side_px: largest length of the longer side; None keeps every size.

    Returns:
        the shrunk (h, w, 3) uint8 pixels, and their JPEG; None instead if they equal `decoded`.
    """
    height, width = shrunk_size(image.shape[:2], max_side_px)
    if (height, width) != image.shape[:2]:
        image = resize(image, (width, height), Image.Resampling.LANCZOS)
    is_changed = image is not decoded and not np.array_equal(image, decoded)
    return image, encode_jpeg(image) if is_changed else None


def encode_jpeg(pixels: np.ndarray) -> bytes:
    """Encodes an (H, W, 3) uint8 image as JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="JPEG", quality=92)
    return buffer.getvalue()


def decode_mask(data: bytes, source: str, limits: ImageLimits = DEFAULT_LIMITS) -> np.ndarray:
    """Decodes a palette or grayscale PNG of 1, 2, 4 or 8 bits to its (H, W) uint8 stored indices.

    Raises:
        DataError: the mask is truncated, exceeds the limits, or has colours, 16 bits or an alpha
            channel.
    """
    image = open_bounded(data, source, limits)
    if image.mode not in ("P", "L", "1"):
        raise DataError(
            f"mask {source} has mode {image.mode}, expected an 8-bit palette or grayscale PNG "
            "whose pixels are class indices"
        )
    pixels = np.asarray(image, dtype=np.uint8)
    if image.mode == "L" and image.format == "PNG":
        # Pillow spreads 2 and 4 bits of grey over 0..255.
        return pixels // (255 // (2 ** data[_PNG_DEPTH_BYTE] - 1))
    return pixels


def image_suffix(data: bytes) -> str:
    """File name extension of encoded bytes: jpg, png, webp or bmp."""
    with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
        return _SUFFIX_OF[str(image.format)]


def encode_mask(mask: np.ndarray, palette: Sequence[Sequence[int]]) -> bytes:
    """Encodes an (H, W) uint8 label map as palette PNG, which viewers show in colours."""
    image = Image.fromarray(mask, mode="L")
    colours = np.zeros((256, 3), np.uint8)
    colours[: len(palette)] = palette
    colours[IGNORE_INDEX] = IGNORE_COLOUR
    image.putpalette(colours.tobytes())
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def check_mask(mask: np.ndarray, size: tuple[int, int], num_indices: int, source: str) -> None:
    """Raises DataError if a mask and its image differ in size, or an index is unknown."""
    if mask.shape != size:
        raise DataError(f"mask {source} is {mask.shape}, but its image is {size} (height, width)")
    found = np.unique(mask)
    unknown = found[(found >= num_indices) & (found != IGNORE_INDEX)]
    if unknown.size:
        raise DataError(
            f"mask {source} contains index {unknown[0]}, expected 0..{num_indices - 1} or "
            f"{IGNORE_INDEX}"
        )
