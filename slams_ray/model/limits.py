"""Limits of the photographs that a trained network segments."""

from slams_ray.config.checks import check
from slams_ray.data.image import ImageLimits

MAX_PIXELS = 2 * 89_478_485
"""Pillow refuses larger images: twice its `Image.MAX_IMAGE_PIXELS`, which a program may change."""
BYTES_A_PIXEL = 4
"""Bytes of a file for each pixel that it may have. RGB without compression has 3."""


def photograph_limits(max_pixels: int) -> ImageLimits:
    """Returns the limits of photographs: their pixels, and a file size that follows from them.

    Raises:
        ConfigError: the number is below 1 or above `MAX_PIXELS`.
    """
    name = "max_image_pixels"
    check(1 <= max_pixels <= MAX_PIXELS, name, max_pixels, f"in 1..{MAX_PIXELS}")
    return ImageLimits(
        max_bytes=max(ImageLimits.max_bytes, BYTES_A_PIXEL * max_pixels),
        max_pixels=max_pixels,
        bytes_remedy=f"{name} raises it, or compress the photograph",
        pixels_remedy=f"{name} raises it to at most {MAX_PIXELS}: memory grows with it",
    )
