"""The HTTP service: masks, JSON, limits and token, without Ray Serve."""

import asyncio
import hashlib
import io
import json
import re
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask

import slams_ray
from slams_ray.config import InferenceConfig
from slams_ray.data.image import ImageLimits
from slams_ray.errors import ArtifactError, ConfigError, DataError
from slams_ray.model.model import Prediction
from slams_ray.networks.checkpoint import dump_network
from slams_ray.networks.segmentation_network import SegmentationNetwork
from slams_ray.serving.answers import answer_each, to_json
from slams_ray.serving.app import ServiceLimits, make_app
from slams_ray.stages import serve

LABELS = np.array([[0, 1, 1], [2, 2, 0]], np.uint8)
PREDICTION = Prediction(
    labels=LABELS,
    confidence=np.array([[0.1, 0.5, 0.7], [0.25, 0.25, 0.1]], np.float32),
    class_names=("background", "cat", "dog"),
    image=np.zeros((2, 3, 3), np.uint8),
)


async def segment(data: bytes, wants_json: bool) -> Any:
    if data == b"bad":
        raise DataError("the image is truncated")
    return to_json(PREDICTION) if wants_json else PREDICTION.to_png()


def request(
    method: str, path: str, body: bytes = b"", token: str | None = None, **headers: str
) -> tuple[int, bytes]:
    """Status and body of the answer of the application to one request."""
    digest = None if token is None else hashlib.sha256(token.encode()).hexdigest()
    app = make_app(segment, ServiceLimits(max_bytes=10), digest)
    sent: list[dict[str, Any]] = []
    waiting = [
        {"type": "http.request", "body": body[:4], "more_body": True},
        {"type": "http.request", "body": body[4:], "more_body": False},
    ]

    async def receive() -> dict[str, Any]:
        return waiting.pop(0) if waiting else {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(k.encode(), v.encode()) for k, v in headers.items()],
    }
    asyncio.run(app(scope, receive, send))
    return sent[0]["status"], b"".join(m.get("body", b"") for m in sent)


def test_an_image_becomes_a_palette_png() -> None:
    status, body = request("POST", "/predict", b"image")
    assert status == 200
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(body))), LABELS)


def test_json_has_regions_that_pycocotools_decodes() -> None:
    status, body = request("POST", "/predict", b"image", accept="application/json")
    content = json.loads(body)
    assert (status, content["height"], content["width"]) == (200, 2, 3)
    assert [(r["class"], r["confidence"]) for r in content["regions"]] == [
        ("cat", 0.6),
        ("dog", 0.25),
    ]
    rebuilt = sum(r["class_index"] * coco_mask.decode(r["rle"]) for r in content["regions"])
    np.testing.assert_array_equal(rebuilt, LABELS)


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b"bad", 422, "the image is truncated"),
        (b"", 422, "the body is empty"),
        (b"0123456789a", 413, "more than 10 bytes"),
    ],
)
def test_a_bad_body_is_refused_with_its_reason(body: bytes, status: int, message: str) -> None:
    found, text = request("POST", "/predict", body)
    assert found == status
    assert message in text.decode()


@pytest.mark.parametrize(
    ("header", "status"),
    [("Bearer secret", 200), ("bearer secret", 200), ("Bearer other", 401), ("secret", 401)],
)
def test_only_the_token_opens_the_service(header: str, status: int) -> None:
    ask = partial(request, "POST", "/predict", b"image", token="secret")
    assert ask(authorization=header)[0] == status
    assert ask()[0] == 401
    assert request("GET", "/healthz", token="secret") == (200, b'{"status":"ok"}')


def test_a_service_for_other_machines_needs_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLAMS_SERVE_TOKEN", raising=False)
    for host in ("127.0.0.1", "127.9.9.9", "::1", "localhost"):
        assert serve.token_digest(host) is None
    others = ("0.0.0.0", "::", "10.0.0.1", "node1", "localhost.example.org", "127.0.0.1.org", "")
    for host in others:
        expected = rf"would answer anyone who reaches {re.escape(host)}: set SLAMS_SERVE_TOKEN"
        with pytest.raises(ConfigError, match=expected):
            serve.token_digest(host)
    monkeypatch.setenv("SLAMS_SERVE_TOKEN", "secret")
    for host in others:
        assert serve.token_digest(host) == hashlib.sha256(b"secret").hexdigest()


def test_images_of_a_batch_are_answered_as_alone_and_share_a_forward(tmp_path: Path) -> None:
    data, make_model = {}, partial(slams_ray.load, write_network(tmp_path))
    rng = np.random.default_rng(0)
    for name, size in (("a", (30, 40)), ("b", (30, 40)), ("c", (48, 20)), ("d", (30, 40))):
        coarse = Image.fromarray(rng.integers(0, 256, (5, 6, 3), np.uint8))
        buffer = io.BytesIO()
        coarse.resize(size, Image.Resampling.BICUBIC).save(buffer, "PNG")
        data[name] = buffer.getvalue()
    limits = ImageLimits(max_pixels=2000)
    requests = [(data["a"], True), (data["c"], False), (b"no image", True), (data["b"], False)]
    requests += [(encoded_colour((60, 60)), False), (data["d"], True)]
    together = make_model(batch_size=3)
    sizes: list[int] = []
    together.predictor.network.register_forward_hook(lambda _, inputs, out: sizes.append(len(out)))
    found = answer_each(together, requests, limits)
    assert sizes == [3, 1]
    assert [type(one) for one in found] == [dict, bytes, DataError, bytes, DataError, dict]
    assert "truncated or not an image" in str(found[2])
    assert "the limit is 2000 pixels" in str(found[4])
    alone = make_model(batch_size=1)
    for one, request in zip(found, requests, strict=True):
        if isinstance(one, bytes):
            (expected,) = answer_each(alone, [request], limits)
            np.testing.assert_array_equal(*(np.asarray(open_png(p)) for p in (one, expected)))
    boxes = [{r["class"] for r in one["regions"]} for one in found if isinstance(one, dict)]
    assert all(boxes), "the network finds objects"


def open_png(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def encoded_colour(size: tuple[int, int]) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size).save(buffer, "PNG")
    return buffer.getvalue()


def write_network(directory: Path) -> Path:
    """A checkpoint of a small network whose classes vary over an image; one scale, no mirroring."""
    architecture = {
        "backbone_name": "tiny_resnet",
        "output_stride": 8,
        "num_classes": 2,
        "head": "deeplabv2",
    }
    torch.manual_seed(0)
    network = SegmentationNetwork(**architecture)
    torch.nn.init.normal_(network.head.branches[0].weight)
    inference = InferenceConfig(scales=(1.0,), flip=False, precision="float32")
    settings = asdict(inference) | {"max_side_px": None}
    path = directory / "model.pt"
    names = ("background", "cat", "dog")
    path.write_bytes(dump_network(network, architecture, names, settings))
    return path


@pytest.mark.parametrize("name", ["nothing", "empty"])
def test_a_model_that_does_not_exist_is_named_before_anything_starts(
    name: str, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ArtifactError, match=f"{name} is neither a checkpoint nor the workspace"):
        serve.run(str(tmp_path / name), serve.ServiceSettings(), serve.ServiceLimits())
