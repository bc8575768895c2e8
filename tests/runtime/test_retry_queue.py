"""Requests to a server that is gone for a while, for good, or refuses."""

import logging
import threading
import time
from collections.abc import Callable

import pytest
import requests
from botocore.exceptions import ClientError, EndpointConnectionError
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, TEMPORARILY_UNAVAILABLE

from slams_ray.runtime import retry_queue
from slams_ray.runtime.retry_queue import RetryQueue, Trouble, diagnose


class Server:
    """Keeps what it is sent while it is up."""

    def __init__(self) -> None:
        self.is_up = True
        self.received: list[str] = []

    def request(self, text: str) -> Callable[[], str]:
        def call() -> str:
            if not self.is_up:
                raise ConnectionRefusedError("nobody listens")
            self.received.append(text)
            return text.upper()

        return call

    def send(self, box: RetryQueue, *texts: str) -> None:
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
    monkeypatch.setattr(retry_queue, "FIRST_PAUSE", 0.02)
    monkeypatch.setattr(retry_queue, "LONGEST_PAUSE", 0.05)
    monkeypatch.setattr(retry_queue, "PATIENCE_SECONDS", 0.3)


def test_what_was_sent_meanwhile_arrives_once_in_order_when_the_server_is_back(
    server: Server, said: pytest.LogCaptureFixture
) -> None:
    box = RetryQueue("http://server")
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
    monkeypatch.setattr(retry_queue, "FIRST_PAUSE", 60.0)
    monkeypatch.setattr(retry_queue, "LONGEST_PAUSE", 60.0)
    box = RetryQueue("http://server")
    server.is_up = False
    server.send(box, "a")
    server.is_up = True
    server.send(box, "b", "c")
    assert server.received == []
    box.settle()
    assert server.received == ["a", "b", "c"]


def test_an_answer_comes_after_what_waits(server: Server) -> None:
    box = RetryQueue("http://server")
    server.is_up = False
    server.send(box, "a")
    server.is_up = True
    assert box.ask("a run", server.request("b")) == "B"
    assert server.received == ["a", "b"]


def test_a_server_that_stays_away_is_waited_for_once_and_has_everything_when_it_is_back(
    server: Server, said: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    box = RetryQueue("http://server")
    server.is_up = False
    server.send(box, "a")
    assert not box.settle()
    monkeypatch.setattr(retry_queue, "PATIENCE_SECONDS", 600.0)
    began = time.monotonic()
    assert not box.settle()
    assert time.monotonic() - began < 300, "no second wait"
    server.send(box, "b")
    server.is_up = True
    assert box.settle()
    assert server.received == ["a", "b"]
    assert not box.lost
    assert [r.levelname for r in said.records] == ["WARNING", "WARNING", "INFO"]
    assert "1 requests stay queued" in said.records[1].message


def test_a_question_nobody_answers_is_not_asked_later(server: Server) -> None:
    box = RetryQueue("http://server")
    server.is_up = False
    assert box.ask("a run", server.request("a")) is None
    server.is_up = True
    server.send(box, "b")
    assert box.settle()
    assert server.received == ["b"]
    assert box.lost


def test_a_full_queue_keeps_what_came_first(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry_queue, "MAX_WAITING", 2)
    box = RetryQueue("http://server")
    server.is_up = False
    server.send(box, "a", "b", "c")
    server.is_up = True
    assert box.settle()
    assert server.received == ["a", "b"]
    assert box.lost


def test_a_question_to_a_full_queue_is_left_out(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry_queue, "MAX_WAITING", 1)
    box = RetryQueue("http://server")
    server.is_up = False
    server.send(box, "a")
    assert box.ask("a run", server.request("b")) is None
    server.is_up = True
    assert box.settle()
    assert server.received == ["a"]
    assert box.lost


def test_a_request_that_is_refused_after_a_fault_is_left_out_at_once(server: Server) -> None:
    errors: list[Exception] = [http_error(403), http_error(500)]

    def fail() -> None:
        raise errors.pop()

    box = RetryQueue("http://server")
    box.send("tags", fail)
    assert box.settle()
    assert errors == []
    assert box.lost


def http_error(status: int) -> requests.HTTPError:
    response = requests.Response()
    response.status_code = status
    return requests.HTTPError(f"{status}", response=response)


def raised_from(cause: Exception) -> Exception:
    """As MLflow wraps what requests raise."""
    try:
        try:
            raise cause
        except Exception as error:
            raise MlflowException(f"API request failed with exception {error}")  # noqa: B904
    except MlflowException as error:
        return error


CAUSES = {
    Trouble.GONE: [
        ConnectionError("reset"),
        TimeoutError("no reply"),
        requests.ConnectionError("refused"),
        requests.ReadTimeout("slow"),
        raised_from(requests.ConnectionError("refused")),
        http_error(503),
        http_error(429),
        MlflowException("database is locked", TEMPORARILY_UNAVAILABLE),
        EndpointConnectionError(endpoint_url="http://store"),
        ClientError({"ResponseMetadata": {"HTTPStatusCode": 503}}, "PutObject"),
    ],
    Trouble.FAULT: [MlflowException("internal"), http_error(500)],
    Trouble.REFUSED: [
        MlflowException("too long", INVALID_PARAMETER_VALUE),
        http_error(403),
        http_error(413),
        ClientError({"ResponseMetadata": {"HTTPStatusCode": 403}}, "PutObject"),
        PermissionError("mlartifacts"),
        FileNotFoundError("removed.png"),
        ValueError("cannot be written as JSON"),
    ],
}


@pytest.mark.parametrize(
    ("trouble", "error"),
    [(trouble, error) for trouble, errors in CAUSES.items() for error in errors],
)
def test_what_an_error_tells(trouble: Trouble, error: Exception) -> None:
    assert diagnose(error) is trouble


@pytest.mark.parametrize("error", [CAUSES[t][0] for t in (Trouble.FAULT, Trouble.REFUSED)])
def test_a_request_that_is_never_done_is_left_out_and_those_behind_it_are_sent(
    error: Exception, server: Server, said: pytest.LogCaptureFixture
) -> None:
    tries = []

    def fail() -> None:
        tries.append(1)
        raise error

    box = RetryQueue("http://server")
    for _ in range(2):
        box.send("tags", fail)
    server.send(box, "a")
    monkey = pytest.MonkeyPatch()
    monkey.setattr(retry_queue, "PATIENCE_SECONDS", 30.0)
    assert box.settle()
    monkey.undo()
    assert server.received == ["a"]
    assert len(tries) == 2 * (retry_queue.MAX_FAULTS if diagnose(error) is Trouble.FAULT else 1)
    assert box.lost
    dropped = [r for r in said.records if ": dropped" in r.message]
    assert len(dropped) == 1, "logged once for each kind"
    assert "did not accept tags" in dropped[0].message


@pytest.mark.parametrize("error", [ConnectionError("reset"), TimeoutError("no reply")])
def test_broken_connections_are_tried_again(error: Exception) -> None:
    failures = [error]
    received = []

    def request() -> None:
        if failures:
            raise failures.pop()
        received.append("a")

    box = RetryQueue("http://server")
    box.send("metrics", request)
    box.settle()
    assert received == ["a"]


def test_threads_share_a_queue_and_nothing_is_lost_or_sent_twice(server: Server) -> None:
    box = RetryQueue("http://server")
    answers: list[str | None] = []

    def slow(text: str) -> Callable[[], str]:
        def call() -> str:
            # Other threads meet a request that has not left the queue.
            time.sleep(0.001)
            return server.request(text)()

        return call

    def work(letter: str) -> None:
        for i in range(20):
            box.send("metrics", slow(f"{letter}{i}"))
        answers.append(box.ask("the run", slow(f"{letter} asks")))

    threads = [threading.Thread(target=work, args=[letter]) for letter in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(str, answers)) == ["A ASKS", "B ASKS", "C ASKS", "D ASKS"]
    for letter in "abcd":
        own = [text for text in server.received if text[0] == letter]
        assert own == [*(f"{letter}{i}" for i in range(20)), f"{letter} asks"]
