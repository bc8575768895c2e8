"""Ctrl-C while the driver waits for Ray ends what it waits for."""

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from slams_ray.runtime import cluster
from slams_ray.runtime.interrupts import handler_kept, in_thread, start, wait_for


@pytest.fixture(autouse=True)
def pythons_handler() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def interrupt_soon() -> None:
    threading.Timer(0.1, os.kill, [os.getpid(), signal.SIGINT]).start()


@pytest.fixture
def left(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Set once this process leaves the cluster; Ray then ends the threads that wait for it."""
    event = threading.Event()
    monkeypatch.setattr(cluster, "disconnect", event.set)
    return event


def test_the_answer_or_the_error_of_the_work_comes_back(left: threading.Event) -> None:
    assert in_thread(lambda: 3) == 3
    with pytest.raises(ZeroDivisionError):
        in_thread(lambda: 1 // 0)
    assert not left.is_set()


def test_the_work_cannot_replace_the_handler_of_ctrl_c() -> None:
    def work() -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    with pytest.raises(ValueError, match="main thread"):
        in_thread(work)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_interrupt_leaves_the_cluster_and_waits_for_the_end(left: threading.Event) -> None:
    ended: list[bool] = []
    interrupt_soon()
    with pytest.raises(KeyboardInterrupt):
        in_thread(lambda: ended.append(left.wait(10)))
    assert ended == [True]


def test_an_interrupt_ends_all_work(left: threading.Event) -> None:
    answers = [start(lambda: left.wait(10)) for _ in range(3)]
    interrupt_soon()
    with pytest.raises(KeyboardInterrupt):
        wait_for(answers)
    assert [answer.result(timeout=0) for answer in answers] == [True] * 3


def test_work_that_ray_ended_is_an_error() -> None:
    def work() -> None:
        raise SystemExit(0)

    with pytest.raises(ConnectionError, match="lost its connection to Ray"):
        in_thread(work)


def test_in_another_thread_the_work_stays_there() -> None:
    found: list[int] = []

    def outer() -> None:
        found.append(threading.get_ident())
        in_thread(lambda: found.append(threading.get_ident()))

    thread = threading.Thread(target=outer)
    thread.start()
    thread.join()
    assert found[0] == found[1]


def test_a_handler_that_work_leaves_behind_is_replaced() -> None:
    with handler_kept():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
