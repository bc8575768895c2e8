"""What a load of requests counts and times, against a server that refuses some of them."""

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from slams_ray.benchmarks.harness.requests import Load, load

ANSWER_SECONDS = 0.05


class Handler(BaseHTTPRequestHandler):
    """Answers once as many requests are there as a test expects at a time."""

    most_at_a_time = running = 0
    expected = threading.Barrier(1)
    lock = threading.Lock()

    def do_POST(self) -> None:
        cls = type(self)
        with cls.lock:
            cls.running += 1
            cls.most_at_a_time = max(cls.most_at_a_time, cls.running)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        cls.expected.wait(timeout=60)
        time.sleep(ANSWER_SECONDS)
        with cls.lock:
            cls.running -= 1
        self.send_response(500 if body == b"bad" else 200)
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def address() -> Iterator[str]:
    Handler.most_at_a_time = 0
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/predict"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("concurrency", [1, 3])
def test_requests_are_as_many_at_a_time_as_asked_for(address: str, concurrency: int) -> None:
    Handler.expected = threading.Barrier(concurrency)
    found = load(address, [b"good", b"bad", b"good"], concurrency)
    assert found.num_failed == 1
    assert Handler.most_at_a_time == concurrency
    assert (found.seconds >= ANSWER_SECONDS).all()
    assert found.total_seconds >= 3 * ANSWER_SECONDS / concurrency


def test_a_broken_connection_is_a_failed_request(address: str) -> None:
    assert load("http://127.0.0.1:1/predict", [b"good"], 1).num_failed == 1


def test_percentiles_are_of_the_answers_and_the_rate_is_of_all() -> None:
    found = Load(seconds=np.arange(1, 101) / 1000, num_failed=0, total_seconds=2.0)
    assert found.per_second == 50
    assert found.milliseconds(50) == pytest.approx(50.5)
    assert found.milliseconds(95) == pytest.approx(95.05)
