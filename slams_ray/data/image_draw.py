"""A random draw of images that depends on which images there are, not on their order."""

import hashlib
import heapq
from collections.abc import Iterable

Placed = tuple[str, str]
"""Image id, and the shard that holds it."""


def draw_images(images: Iterable[Placed], num_images: int, seed: int) -> list[Placed]:
    """So many images at random, in random order; all of them where there are no more.

    An image is ranked by a hash of its id and the seed, so the same set of images in any order
    gives the same draw. Memory grows with `num_images`, not with the images passed.

    Args:
        images: each id once.
    """
    return heapq.nsmallest(num_images, images, key=lambda image: _rank(image[0], seed))


def _rank(image_id: str, seed: int) -> bytes:
    return hashlib.blake2b(f"{seed}/{image_id}".encode(), digest_size=16).digest()
