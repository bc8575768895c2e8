"""Serves a trained network over HTTP with Ray Serve."""

import hashlib
import ipaddress
import logging
import os
from collections.abc import Sequence
from dataclasses import fields
from functools import partial
from typing import Any

from slams_ray import storage
from slams_ray.errors import ConfigError
from slams_ray.inference.image_batches import GPU_BATCH
from slams_ray.model.model import load_model
from slams_ray.model.source import MLFLOW_SCHEMES, find_model
from slams_ray.runtime.cluster import assigned_device
from slams_ray.runtime.service import Request, ServiceSettings, Work, deploy, make_application
from slams_ray.serving.answers import answer_each
from slams_ray.serving.app import TOKEN_VARIABLE, ServiceLimits, make_app

__all__ = ["ServiceLimits", "ServiceSettings", "application", "run"]

EVERY_ADDRESS = "0.0.0.0"

logger = logging.getLogger(__name__)


def run(
    model: str, settings: ServiceSettings, limits: ServiceLimits, blocking: bool = True
) -> None:
    """Serves until the process is interrupted, or starts the service if not blocking.

    Args:
        model: see `find_model`; every node must reach it.

    Raises:
        ArtifactError: there is no such model.
        ConfigError: the service would be open to other machines without a token.
    """
    parts = _parts(model, settings, limits, token_digest(settings.host))
    if not model.startswith(MLFLOW_SCHEMES):
        # A replica would start, fail, and start again.
        find_model(storage.absolute(model))
    logger.info("starting POST http://%s:%d/predict", settings.host, settings.port)
    deploy(*parts, blocking)


def application(options: dict[str, Any]) -> Any:
    """Builds the application for a configuration file of Ray Serve, such as that of a RayService.

    Args:
        options: model, and any fields of `ServiceSettings` and `ServiceLimits` but the address.

    Raises:
        ConfigError: an option is unknown or missing, or the nodes have no token.
    """
    given = dict(options)
    model = given.pop("model", None)
    names = {kind: {f.name for f in fields(kind)} for kind in (ServiceSettings, ServiceLimits)}
    known = names[ServiceSettings] - {"host", "port"} | names[ServiceLimits]
    if model is None or given.keys() - known:
        raise ConfigError(
            f"the options of the service are {', '.join(options)}: expected model, and any of "
            f"{', '.join(sorted(known))}"
        )
    given.setdefault("max_batch_size", default_batch_size(given.get("num_gpus", 0)))
    settings = ServiceSettings(**{n: v for n, v in given.items() if n in names[ServiceSettings]})
    limits = ServiceLimits(**{n: v for n, v in given.items() if n in names[ServiceLimits]})
    return make_application(*_parts(model, settings, limits, token_digest(EVERY_ADDRESS)))


def _parts(
    model: str, settings: ServiceSettings, limits: ServiceLimits, digest: str | None
) -> tuple[Any, Any, ServiceSettings]:
    if not model.startswith(MLFLOW_SCHEMES):
        model = storage.absolute(model)
    return (
        partial(make_work, model, limits, settings.max_batch_size),
        partial(make_app, limits=limits, token_digest=digest),
        settings,
    )


def token_digest(host: str) -> str | None:
    """Returns the SHA-256 digest of the token in the environment; None without a token.

    Ray stores what it starts, so it gets the digest and not the token.

    Raises:
        ConfigError: there is no token, and other machines may reach the host: it is neither
            localhost nor a loopback address.
    """
    token = os.environ.get(TOKEN_VARIABLE)
    if token:
        return hashlib.sha256(token.encode()).hexdigest()
    if not _is_loopback(host):
        raise ConfigError(
            f"the service would answer anyone who reaches {host}: set {TOKEN_VARIABLE} to a "
            "secret, or --host to 127.0.0.1"
        )
    return None


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        # What another name resolves to may change, and differs between nodes.
        return False


def default_batch_size(num_gpus: float) -> int:
    """Most requests that a replica answers together, as predictors batch; not measured."""
    return GPU_BATCH if num_gpus else 1


def make_work(model: str, limits: ServiceLimits, batch_size: int) -> Work:
    """Loads the network. It runs once in every replica."""
    loaded = load_model(model, device=assigned_device(), batch_size=batch_size)

    def work(requests: Sequence[Request]) -> Sequence[object]:
        return answer_each(loaded, requests, limits.image)

    return work
