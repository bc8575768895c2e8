"""Batches of images of equal size, decoded while the previous batch is computed."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np

from slams_ray.data.image import decode_image

WAITING_BATCHES = 4

Indexed = tuple[int, np.ndarray]
Enter = Callable[[str], None]
Item = TypeVar("Item")
Result = TypeVar("Result")


def decoded_batches(
    image_ids: Sequence[str],
    encoded: Sequence[bytes],
    batch_size: int,
    ahead: int,
    enter: Enter | None = None,
    max_pixels: int | None = None,
) -> Iterator[list[Indexed]]:
    """Yields lists of (index, decoded image) as `batches_of_one_size` does.

    Args:
        ahead: number of images that another thread decodes in advance; 0 decodes on demand.
        batch_size, max_pixels: see `batches_of_one_size`.
        enter: called with the id of each image before its processing. If it is given, batches hold
            one image and none is decoded in advance, so that the last id names the current image.
    """
    if enter is not None:
        batch_size, ahead = 1, 0

    def decode(index: int) -> Indexed:
        if enter is not None:
            enter(image_ids[index])
        return index, decode_image(encoded[index], image_ids[index])

    images = work_ahead(decode, range(len(image_ids)), ahead)
    yield from batches_of_one_size(images, batch_size, max_pixels)


def batches_of_one_size(
    images: Iterable[Indexed], batch_size: int, max_pixels: int | None = None
) -> Iterator[list[Indexed]]:
    """Yields lists of up to `batch_size` (index, image) pairs whose images have equal size.

    If images of many sizes wait, the oldest batch is yielded before it is full, so that at most
    `WAITING_BATCHES` batches are in memory.

    Args:
        max_pixels: most pixels of a batch; a larger image is alone. None sets no limit.
    """
    waiting: dict[tuple[int, ...], list[Indexed]] = {}
    for index, image in images:
        batch = waiting.setdefault(image.shape, [])
        batch.append((index, image))
        if len(batch) == _capacity(image, batch_size, max_pixels):
            yield waiting.pop(image.shape)
        elif sum(map(len, waiting.values())) == WAITING_BATCHES * batch_size:
            yield waiting.pop(next(iter(waiting)))
    yield from waiting.values()


def _capacity(image: np.ndarray, batch_size: int, max_pixels: int | None) -> int:
    """Returns how many images of this size a batch holds."""
    if max_pixels is None:
        return batch_size
    return max(1, min(batch_size, max_pixels // (image.shape[0] * image.shape[1])))


def work_ahead(
    work: Callable[[Item], Result], items: Iterable[Item], ahead: int
) -> Iterator[Result]:
    """Works as `map`, with `ahead` results computed in a thread; decoding releases the GIL.

    With `ahead` 0 there is no thread.
    """
    if not ahead:
        yield from map(work, items)
        return
    with ThreadPoolExecutor(1) as thread:
        running: deque[Future[Result]] = deque()
        for item in items:
            running.append(thread.submit(work, item))
            if len(running) > ahead:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()
