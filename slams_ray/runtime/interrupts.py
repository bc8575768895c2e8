"""Ctrl-C while the driver waits for Ray.

Ray Train and Ray Tune replace Python's handler in the main thread, and do not put it back: a
training would end with status 1 and no word, and a later stage would only log the first Ctrl-C.
"""

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager
from typing import Any, TypeVar

from slams_ray.runtime import cluster

Answer = TypeVar("Answer")

SECONDS_BETWEEN_SIGNALS = 1.0
SECONDS_TO_END = 3.0
"""How long interrupted work may take to end its MLflow runs. The watchdog ends the others: of two
threads Ray ends only one at once."""


def in_thread(work: Callable[[], Answer]) -> Answer:
    """Returns the answer of work that waits for Ray, computed in another thread than the main one.

    Raises:
        Exception: what the work raises.
        KeyboardInterrupt: Ctrl-C; this process has then left the cluster.
    """
    if threading.current_thread() is not threading.main_thread():
        return work()
    answer = start(work)
    wait_for([answer])
    return answer.result()


def start(work: Callable[[], Answer]) -> "Future[Answer]":
    """Starts work in a thread that ends with this process."""
    answer: Future[Answer] = Future()

    def run() -> None:
        try:
            answer.set_result(work())
        except Exception as error:
            answer.set_exception(error)
        except SystemExit:
            # Ray raises it in threads that wait for a cluster that is gone.
            answer.set_exception(ConnectionError("this process has lost its connection to Ray"))

    threading.Thread(target=run, daemon=True).start()
    return answer


def wait_for(answers: "Sequence[Future[Any]]") -> None:
    """Waits for work that waits for Ray.

    An exception of a signal, such as KeyboardInterrupt, ends this work.
    """
    try:
        # Limited, because a signal that another thread received is handled after it. Not
        # Thread.join, after whose interruption Python 3.11 takes a thread as ended.
        while wait(answers, SECONDS_BETWEEN_SIGNALS).not_done:
            pass
    except BaseException:
        # Otherwise the trainings of a notebook would go on.
        cluster.disconnect()
        wait(answers, SECONDS_TO_END)
        raise


@contextmanager
def handler_kept() -> Iterator[None]:
    """Puts the handler of Ctrl-C back."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, handler)
