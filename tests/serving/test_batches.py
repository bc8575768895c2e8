"""What a replica does with a batch of requests, and a front with a replica that dies; no Ray."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from slams_ray.errors import ConfigError, DataError
from slams_ray.runtime.service import ATTEMPTS, Replica, Request, ServiceSettings, answered


class Work:
    """Reverses bodies; `refused` fails the whole batch that contains it."""

    def __init__(self) -> None:
        self.batches: list[list[bytes]] = []

    def __call__(self, requests: Sequence[Request]) -> list[Any]:
        bodies = [data for data, _ in requests]
        self.batches.append(bodies)
        if b"refused" in bodies:
            raise RuntimeError("too little memory")
        return [DataError("no image") if b == b"bad" else b[::-1] for b in bodies]


class Collector:
    """Waits for a number of requests, as Ray Serve's batches do for a time."""

    def __init__(self, batch_size: int) -> None:
        self.batch_size = batch_size
        self.waiting: list[tuple[Request, asyncio.Future[Any]]] = []

    def __call__(self, answer_each: Any) -> Any:
        async def ask(request: Request) -> Any:
            future = asyncio.get_running_loop().create_future()
            self.waiting.append((request, future))
            if len(self.waiting) == self.batch_size:
                waiting, self.waiting = self.waiting, []
                found = await answer_each([one for one, _ in waiting])
                for (_, own), answer in zip(waiting, found, strict=True):
                    own.set_result(answer)
            return await future

        return ask


def ask_together(work: Work, bodies: list[bytes]) -> list[Any]:
    """What each of concurrent requests gets: an answer or an exception."""

    async def run() -> list[Any]:
        replica = Replica(lambda: work, lambda: Collector(len(bodies)))
        return await asyncio.gather(
            *(replica(body, False) for body in bodies), return_exceptions=True
        )

    return asyncio.run(run())


def test_a_bad_body_is_an_error_for_its_own_request_alone() -> None:
    work = Work()
    found = ask_together(work, [b"ab", b"bad", b"cd"])
    assert found == [("", b"ba"), ("no image", None), ("", b"dc")]
    assert work.batches == [[b"ab", b"bad", b"cd"]]


def test_after_an_error_of_a_batch_each_request_is_answered_alone() -> None:
    work = Work()
    first, refused, bad = ask_together(work, [b"ab", b"refused", b"bad"])
    assert (first, bad) == (("", b"ba"), ("no image", None))
    assert isinstance(refused, RuntimeError)
    assert work.batches[1:] == [[b"ab"], [b"refused"], [b"bad"]]


class ReplicaDiedError(Exception):
    pass


@pytest.mark.parametrize("num_deaths", range(ATTEMPTS + 1))
def test_a_request_outlives_its_replicas(num_deaths: int) -> None:
    asked = []

    async def ask(data: bytes, wants_json: bool) -> Any:
        asked.append(data)
        if len(asked) <= num_deaths:
            raise ReplicaDiedError
        return ("no image", None) if data == b"bad" else ("", data[::-1])

    def answer(data: bytes) -> Any:
        asked.clear()
        return asyncio.run(answered(ask, data, False, ReplicaDiedError))

    if num_deaths == ATTEMPTS:
        with pytest.raises(ReplicaDiedError):
            answer(b"ab")
        assert len(asked) == ATTEMPTS
        return
    assert answer(b"ab") == b"ba"
    assert len(asked) == num_deaths + 1
    with pytest.raises(DataError, match="no image"):
        answer(b"bad")


def test_another_error_of_a_replica_is_not_asked_again() -> None:
    asked = []

    async def ask(data: bytes, wants_json: bool) -> Any:
        asked.append(data)
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        asyncio.run(answered(ask, b"ab", False, ReplicaDiedError))
    assert len(asked) == 1


def test_a_replica_holds_the_next_batch_while_it_computes_one() -> None:
    assert ServiceSettings(max_batch_size=8).requests_per_replica >= 16


@pytest.mark.parametrize(
    "settings",
    [{"min_replicas": 0}, {"min_replicas": 3}, {"max_batch_size": 0}, {"batch_wait_seconds": -1}],
)
def test_settings_that_cannot_be_kept_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="expected at least 1"):
        ServiceSettings(**settings)
