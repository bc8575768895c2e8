"""Copies batches from the host to a device, on a GPU one batch ahead of the training."""

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import torch

HostBatch = Mapping[str, np.ndarray]
DeviceBatch = dict[str, torch.Tensor]
Item = TypeVar("Item")


def on_device(batches: Iterable[HostBatch], device: torch.device) -> Iterator[DeviceBatch]:
    """Yields name -> tensor on the device for each batch, in order.

    On a GPU another thread fetches, pins and copies the next batch on a stream of its own while
    the training computes.
    """
    if device.type == "cuda":
        yield from _copied_on_a_stream(batches, device)
    else:
        for batch in batches:
            yield {name: _owned(values) for name, values in batch.items()}


def one_ahead(make: Callable[[], Item | None]) -> Generator[Item]:
    """Yields what `make` returns until it returns None. A thread makes the next item in advance.

    An exception of `make` is raised here, after the items before it.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="next-batch") as thread:
        waiting = thread.submit(make)
        while (item := waiting.result()) is not None:
            waiting = thread.submit(make)
            yield item


def _owned(values: np.ndarray) -> torch.Tensor:
    """A tensor of a copy: arrays of Ray's object store are read-only."""
    return torch.from_numpy(np.array(values))


def _pinned(values: np.ndarray) -> torch.Tensor:
    """A tensor in pinned memory, from which a copy to a GPU does not hold up the host."""
    dtype = torch.from_numpy(np.empty(0, values.dtype)).dtype
    pinned = torch.empty(values.shape, dtype=dtype, pin_memory=True)
    pinned.numpy()[...] = values
    return pinned


def _copied_on_a_stream(
    batches: Iterable[HostBatch], device: torch.device
) -> Iterator[DeviceBatch]:
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    source = iter(batches)

    def copy() -> tuple[DeviceBatch, torch.cuda.Event] | None:
        batch = next(source, None)
        if batch is None:
            return None
        with torch.cuda.stream(stream):
            copied = {
                name: _pinned(values).to(device, non_blocking=True)
                for name, values in batch.items()
            }
            return copied, stream.record_event()

    for copied, done in one_ahead(copy):
        computing = torch.cuda.current_stream(device)
        computing.wait_event(done)
        for tensor in copied.values():
            # Its memory belongs to the stream of copies and must not be reused before.
            tensor.record_stream(computing)
        yield copied
