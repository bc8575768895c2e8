"""Images of one size in batches, decoded while the batch before them is computed."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from slams_ray.data.image import decode_image

WAITING_BATCHES = 4

Indexed = tuple[int, np.ndarray]
Enter = Callable[[str], None]


def decoded_batches(
    image_ids: Sequence[str],
    encoded: Sequence[bytes],
    batch_size: int,
    ahead: int,
    enter: Enter | None = None,
) -> Iterator[list[Indexed]]:
    """Decoded images with their indices, up to `batch_size` of one size at a time.

    Where many sizes wait for more of their kind, the oldest goes before its batch is full, so that
    at most `WAITING_BATCHES` batches are held.

    Args:
        ahead: images decoded beforehand in another thread; 0 decodes when asked.
        enter: called with the id of each image before anything is done with it. Where it is given,
            images come one by one and none is decoded ahead, so that the one entered last is the
            one that is worked on.
    """
    if enter is not None:
        batch_size, ahead = 1, 0

    def decode(index: int) -> Indexed:
        if enter is not None:
            enter(image_ids[index])
        return index, decode_image(encoded[index], image_ids[index])

    indices = range(len(image_ids))
    waiting: dict[tuple[int, ...], list[Indexed]] = {}
    for index, image in _ahead(decode, indices, ahead) if ahead else map(decode, indices):
        batch = waiting.setdefault(image.shape, [])
        batch.append((index, image))
        if len(batch) == batch_size:
            yield waiting.pop(image.shape)
        elif sum(map(len, waiting.values())) == WAITING_BATCHES * batch_size:
            yield waiting.pop(next(iter(waiting)))
    yield from waiting.values()


def _ahead(work: Callable[[int], Indexed], indices: Sequence[int], ahead: int) -> Iterator[Indexed]:
    """`map` with as many results made beforehand; decoding lets go of Python's lock."""
    with ThreadPoolExecutor(1) as thread:
        running: deque[Future[Indexed]] = deque()
        for index in indices:
            running.append(thread.submit(work, index))
            if len(running) > ahead:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()
