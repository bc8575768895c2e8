"""Requests to a server that is gone for a while, for good, or refuses."""

import logging
import time
from collections.abc import Callable

import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

from slams_ray.runtime import outbox
from slams_ray.runtime.outbox import Outbox


class Server:
    """Keeps what it is sent while it is up."""

    def __init__(self) -> None:
        self.is_up = True
        self.received: list[str] = []

    def request(self, text: str) -> Callable[[], str]:
        def call() -> str:
            if not self.is_up:
                raise MlflowException("API request failed: connection refused")
            self.received.append(text)
            return text.upper()

        return call

    def send(self, box: Outbox, *texts: str) -> None:
        for text in texts:
            box.send("metrics", self.request(text))


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, logger="slams_ray")
    return caplog


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "FIRST_PAUSE", 0.02)
    monkeypatch.setattr(outbox, "PATIENCE_SECONDS", 0.3)


def test_what_was_sent_meanwhile_arrives_once_in_order_when_the_server_is_back(
    server: Server, said: pytest.LogCaptureFixture
) -> None:
    box = Outbox("http://server")
    server.send(box, "a")
    server.is_up = False
    server.send(box, "b", "c")
    assert server.received == ["a"]
    server.is_up = True
    time.sleep(0.05)
    server.send(box, "d")
    assert server.received == ["a", "b", "c", "d"]
    assert [r.levelname for r in said.records] == ["WARNING", "INFO"]
    assert "does not answer" in said.records[0].message
    assert "answers again" in said.records[1].message


def test_a_server_that_is_gone_is_not_asked_at_every_request(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "FIRST_PAUSE", 60.0)
    box = Outbox("http://server")
    server.is_up = False
    server.send(box, "a")
    server.is_up = True
    server.send(box, "b", "c")
    assert server.received == []
    box.settle()
    assert server.received == ["a", "b", "c"]


def test_an_answer_comes_after_what_waits(server: Server) -> None:
    box = Outbox("http://server")
    server.is_up = False
    server.send(box, "a")
    server.is_up = True
    assert box.ask("a run", server.request("b")) == "B"
    assert server.received == ["a", "b"]


def test_a_server_that_stays_away_is_given_up(
    server: Server, said: pytest.LogCaptureFixture
) -> None:
    box = Outbox("http://server")
    server.is_up = False
    server.send(box, "a")
    assert box.ask("a run", server.request("b")) is None
    assert box.closed
    server.is_up = True
    server.send(box, "c")
    box.settle()
    assert server.received == []
    assert "2 requests are dropped" in said.records[-1].message


def test_a_long_queue_is_given_up(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "MAX_WAITING", 3)
    monkeypatch.setattr(outbox, "FIRST_PAUSE", 60.0)
    box = Outbox("http://server")
    server.is_up = False
    server.send(box, "a", "b", "c")
    assert not box.closed
    server.send(box, "d")
    assert box.closed


@pytest.mark.parametrize(
    "error",
    [
        MlflowException("too long", INVALID_PARAMETER_VALUE),
        FileNotFoundError("removed.png"),
        ValueError("cannot be written as JSON"),
    ],
)
def test_a_refused_request_is_left_out_and_those_behind_it_are_sent(
    error: Exception, server: Server, said: pytest.LogCaptureFixture
) -> None:
    def refuse() -> None:
        raise error

    box = Outbox("http://server")
    for _ in range(2):
        box.send("tags", refuse)
    server.send(box, "a")
    assert server.received == ["a"]
    assert not box.closed
    assert [r.levelname for r in said.records] == ["WARNING"], "said once for each kind"
    assert "refuses tags" in said.records[0].message


@pytest.mark.parametrize("error", [ConnectionError("reset"), TimeoutError("no reply")])
def test_broken_connections_are_tried_again(error: Exception) -> None:
    failures = [error]
    received = []

    def request() -> None:
        if failures:
            raise failures.pop()
        received.append("a")

    box = Outbox("http://server")
    box.send("metrics", request)
    box.settle()
    assert received == ["a"]
