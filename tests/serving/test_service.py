"""The service on Ray Serve."""

import json
import urllib.error
import urllib.request
from functools import partial
from typing import Any

import pytest

from slams_ray.errors import DataError
from slams_ray.runtime.service import ServiceSettings, deploy
from slams_ray.serving.app import ServiceLimits, make_app

# Its packages are needed before `ray.serve` can be imported at all.
pytest.importorskip("grpc_reflection", reason="optional: pip install 'slams-ray[serve]'")
PORT = 8765


def make_work() -> Any:
    def work(data: bytes, wants_json: bool) -> bytes | dict[str, int]:
        if data == b"bad":
            raise DataError("truncated")
        return {"num_bytes": len(data)} if wants_json else data[::-1]

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
def test_replicas_answer_and_their_errors_reach_the_client_without_traceback(
    ray_cluster: None,
) -> None:
    from ray import serve

    settings = ServiceSettings(
        host="127.0.0.1", port=PORT, min_replicas=1, max_replicas=1, num_gpus=0
    )
    app = partial(make_app, limits=ServiceLimits(), token_digest=None)
    deploy(make_work, app, settings, blocking=False)
    try:
        assert post(b"image") == (200, b"egami")
        assert json.loads(post(b"image", Accept="application/json")[1]) == {"num_bytes": 5}
        assert post(b"bad") == (422, b'{"detail":"truncated"}')
    finally:
        serve.shutdown()
