"""Random draw of images that does not depend on the order of the images."""

import hashlib
import heapq
from collections.abc import Iterable

Placed = tuple[str, str]
"""Id of an image and name of its shard."""


def draw_images(images: Iterable[Placed], num_images: int, seed: int) -> list[Placed]:
    """Draws `num_images` images, or all if there are fewer, and returns them in random order.

    Images are ranked by a hash of their id and the random seed, so the draw depends on the set of
    images alone. Memory grows with `num_images`, not with the number of images.

    Args:
        images: every id once.
    """
    return heapq.nsmallest(num_images, images, key=lambda image: _rank(image[0], seed))


def _rank(image_id: str, seed: int) -> bytes:
    return hashlib.blake2b(f"{seed}/{image_id}".encode(), digest_size=16).digest()
