"""What reaches a training, and in which order; `tests/gpu_without_gpu` has the part of a GPU."""

import threading
from collections.abc import Iterator
from unittest.mock import MagicMock, Mock, call

import numpy as np
import pytest
import torch

from slams_ray.runtime import batch_copies
from slams_ray.runtime.batch_copies import on_device, one_ahead


def host_batches(number: int) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    batches = [
        {"image": rng.integers(0, 256, (2, 3), np.uint8), "pairs": rng.integers(0, 9, (i, 2))}
        for i in range(number)
    ]
    for batch in batches:
        batch["image"].setflags(write=False)
    return batches


def test_batches_come_in_order_with_their_values_and_may_be_changed() -> None:
    expected = host_batches(4)
    found = list(on_device(expected, torch.device("cpu")))
    assert len(found) == 4
    for batch, host in zip(found, expected, strict=True):
        assert batch.keys() == host.keys()
        for name, values in host.items():
            np.testing.assert_array_equal(batch[name].numpy(), values)
        batch["image"].zero_()
    assert all(host["image"].any() for host in expected)


def test_the_training_waits_for_each_copy_and_keeps_its_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    side, computing, kept = MagicMock(name="side"), MagicMock(name="computing"), Mock()
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: side)
    monkeypatch.setattr(torch.cuda, "stream", MagicMock())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: computing)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda tensor, stream: kept(stream))
    monkeypatch.setattr(batch_copies, "_pinned", batch_copies._owned)
    expected = host_batches(3)
    found = batch_copies._copied_on_a_stream(expected, torch.device("cpu"))
    for number, (batch, host) in enumerate(zip(found, expected, strict=True), start=1):
        assert computing.wait_event.call_count == number
        assert kept.call_args_list == [call(computing)] * (2 * number)
        for name, values in host.items():
            np.testing.assert_array_equal(batch[name].numpy(), values)
    computing.wait_event.assert_called_with(side.record_event.return_value)


def test_items_made_ahead_come_in_order_and_end() -> None:
    source = iter(range(1, 200))
    assert list(one_ahead(lambda: next(source, None))) == list(range(1, 200))
    assert list(one_ahead(lambda: None)) == []


def test_a_thread_makes_one_item_ahead_and_no_more() -> None:
    made, threads, ready = [], set(), threading.Semaphore(0)

    def make() -> int:
        made.append(len(made) + 1)
        threads.add(threading.current_thread())
        ready.release()
        return made[-1]

    items = one_ahead(make)
    for number in range(1, 4):
        assert next(items) == number
        # The item after this one is made without a further call.
        while len(made) <= number:
            assert ready.acquire(timeout=10)
        assert len(made) == number + 1
    assert len(threads) == 1
    assert threading.current_thread() not in threads
    items.close()


def test_an_exception_of_the_thread_reaches_the_training_after_the_batches_before_it() -> None:
    def batches() -> Iterator[int]:
        yield from (1, 2)
        raise ValueError("shard 7 is damaged")

    source = batches()
    items = one_ahead(lambda: next(source, None))
    assert [next(items), next(items)] == [1, 2]
    with pytest.raises(ValueError, match="shard 7 is damaged"):
        next(items)


def test_a_training_that_stops_early_leaves_no_thread() -> None:
    before = threading.active_count()
    items = one_ahead(lambda: 1)
    next(items)
    assert threading.active_count() > before
    items.close()
    assert threading.active_count() == before
