"""HTTP interface of the service: an image in, labels out. It knows nothing of Ray."""

import hashlib
import hmac
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, HTTPException, Request, Response

from slams_ray.data.image import ImageLimits
from slams_ray.errors import DataError

TOKEN_VARIABLE = "SLAMS_SERVE_TOKEN"
"""Environment variable with the bearer token that requests must have."""

Answer = dict[str, Any]
Segment = Callable[[bytes, bool], Awaitable[bytes | Answer]]
"""(encoded image, whether JSON is wanted) -> palette PNG, or the JSON of `answers.to_json`."""


@dataclass(frozen=True, kw_only=True)
class ServiceLimits:
    """What a request may contain.

    Attributes:
        max_bytes: size of the body.
        max_pixels: width times height of the image.
    """

    max_bytes: int = 16 * 2**20
    max_pixels: int = 25_000_000

    @property
    def image(self) -> ImageLimits:
        """The same limits for the decoder."""
        return ImageLimits(
            max_bytes=self.max_bytes,
            max_pixels=self.max_pixels,
            bytes_remedy="--max-bytes of jobs.serve",
            pixels_remedy="--max-pixels of jobs.serve",
        )


def make_app(segment: Segment, limits: ServiceLimits, token_digest: str | None) -> FastAPI:
    """Returns the application.

    `POST /predict` takes an encoded image as its body. It answers with a palette PNG, or with JSON
    if the header Accept asks for application/json. `GET /healthz` answers without a token.

    Args:
        token_digest: SHA-256 of the bearer token that requests must have; None admits everyone.
    """
    app = FastAPI(title="slams_ray", docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.post("/predict")
    async def predict(request: Request) -> Any:
        _check_token(request, token_digest)
        data = await _body(request, limits.max_bytes)
        wants_json = "application/json" in request.headers.get("accept", "")
        try:
            found = await segment(data, wants_json)
        except DataError as error:
            raise HTTPException(422, str(error)) from None
        if isinstance(found, bytes):
            return Response(found, media_type="image/png")
        return found

    return app


def _check_token(request: Request, token_digest: str | None) -> None:
    if token_digest is None:
        return
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    # Compared in constant time, so that the time tells nothing of the token.
    is_known = hmac.compare_digest(hashlib.sha256(given.encode()).hexdigest(), token_digest)
    if scheme.lower() != "bearer" or not is_known:
        raise HTTPException(
            401,
            f"send the header Authorization: Bearer <token>, the value of {TOKEN_VARIABLE}",
            headers={"WWW-Authenticate": "Bearer"},
        )


async def _body(request: Request, max_bytes: int) -> bytes:
    """Reads the body, and stops as soon as it is too large."""
    data = bytearray()
    async for part in request.stream():
        data += part
        if len(data) > max_bytes:
            raise HTTPException(
                413, f"the body has more than {max_bytes} bytes: send a smaller one"
            )
    if not data:
        raise HTTPException(422, "the body is empty: send an encoded image as the body")
    return bytes(data)
