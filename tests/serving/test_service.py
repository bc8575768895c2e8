"""The service on Ray Serve: batches, errors that reach one client, and replicas that die."""

import json
import os
import urllib.error
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from slams_ray.errors import DataError
from slams_ray.runtime.service import ServiceSettings, deploy
from slams_ray.serving.app import ServiceLimits, make_app

# Its packages are needed before `ray.serve` can be imported at all.
pytest.importorskip("grpc_reflection", reason="optional: pip install 'slams-ray[serve]'")
PORT = 8765


def make_work(flag: Path) -> Any:
    """Work that reverses bodies, and aborts its process the first time that it sees "crash"."""

    def answer(data: bytes, wants_json: bool, num_requests: int) -> Any:
        if data == b"bad":
            return DataError("truncated")
        if data == b"crash" and not flag.exists():
            flag.touch()
            os.abort()
        return {"num_requests": num_requests} if wants_json else data[::-1]

    def work(requests: Sequence[tuple[bytes, bool]]) -> list[Any]:
        return [answer(*request, len(requests)) for request in requests]

    return work


def post(body: bytes, **headers: str) -> tuple[int, bytes]:
    address = f"http://127.0.0.1:{PORT}/predict"
    request = urllib.request.Request(address, body, headers, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


@pytest.mark.ray
def test_requests_come_in_batches_errors_reach_one_client_and_a_dead_replica_none(
    ray_cluster: None, tmp_path: Path
) -> None:
    from ray import serve

    settings = ServiceSettings(port=PORT, max_batch_size=3, batch_wait_seconds=2.0)
    app = partial(make_app, limits=ServiceLimits(), token_digest=None)
    deploy(partial(make_work, tmp_path / "crashed"), app, settings, blocking=False)
    try:
        with ThreadPoolExecutor(3) as threads:
            found = list(threads.map(post, [b"image", b"bad", b"other"]))
            assert found == [(200, b"egami"), (422, b'{"detail":"truncated"}'), (200, b"rehto")]
            ask = partial(post, b"image", Accept="application/json")
            answers = [json.loads(f.result()[1]) for f in [threads.submit(ask) for _ in range(3)]]
            assert answers == [{"num_requests": 3}] * 3
            assert list(threads.map(post, [b"crash", b"ab"])) == [(200, b"hsarc"), (200, b"ba")]
    finally:
        serve.shutdown()
