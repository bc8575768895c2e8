"""Serves a trained network over HTTP with Ray Serve."""

import hashlib
import ipaddress
import logging
import os
from collections.abc import Sequence
from functools import partial

from slams_ray import storage
from slams_ray.errors import ConfigError
from slams_ray.inference.image_batches import GPU_BATCH
from slams_ray.model.model import load_model
from slams_ray.model.source import MLFLOW_SCHEMES
from slams_ray.runtime.cluster import assigned_device
from slams_ray.runtime.service import Request, ServiceSettings, Work, deploy
from slams_ray.serving.answers import answer_each
from slams_ray.serving.app import TOKEN_VARIABLE, ServiceLimits, make_app

__all__ = ["ServiceLimits", "ServiceSettings", "run"]

logger = logging.getLogger(__name__)


def run(
    model: str, settings: ServiceSettings, limits: ServiceLimits, blocking: bool = True
) -> None:
    """Serves until the process is interrupted, or starts the service if not blocking.

    Args:
        model: see `find_model`; every node must reach it.

    Raises:
        ConfigError: the service would be open to other machines without a token.
    """
    digest = token_digest(settings.host)
    if not model.startswith(MLFLOW_SCHEMES):
        model = storage.absolute(model)
    logger.info("POST http://%s:%d/predict", settings.host, settings.port)
    deploy(
        partial(make_work, model, limits, settings.max_batch_size),
        partial(make_app, limits=limits, token_digest=digest),
        settings,
        blocking,
    )


def token_digest(host: str) -> str | None:
    """Returns the SHA-256 digest of the token in the environment; None without a token.

    Ray stores what it starts, so it gets the digest and not the token.

    Raises:
        ConfigError: there is no token, and other machines reach the host.
    """
    token = os.environ.get(TOKEN_VARIABLE)
    if token:
        return hashlib.sha256(token.encode()).hexdigest()
    if host != "localhost" and not ipaddress.ip_address(host).is_loopback:
        raise ConfigError(
            f"the service would answer anyone who reaches {host}: set {TOKEN_VARIABLE} to a "
            "secret, or --host to 127.0.0.1"
        )
    return None


def default_batch_size(num_gpus: float) -> int:
    """Most requests that a replica answers together: on a CPU, images of a batch gain no time."""
    return GPU_BATCH if num_gpus else 1


def make_work(model: str, limits: ServiceLimits, batch_size: int) -> Work:
    """Loads the network. It runs once in every replica."""
    loaded = load_model(model, device=assigned_device(), batch_size=batch_size)

    def work(requests: Sequence[Request]) -> Sequence[object]:
        return answer_each(loaded, requests, limits.image)

    return work
