"""Ray Serve: an HTTP interface in front of replicas that keep a model."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from slams_ray.errors import ConfigError, DataError, how_to_install
from slams_ray.runtime import cluster
from slams_ray.runtime.interrupts import SECONDS_BETWEEN_SIGNALS

logger = logging.getLogger(__name__)

APPLICATION, REPLICA = "slams_ray", "model"
ATTEMPTS = 3
"""Replicas that may die of a request, or beside it, before its client gets an error."""
WAITING_REQUESTS = 2
"""Requests for a replica, beyond those of a batch, before Ray Serve starts another."""

Request = tuple[bytes, bool]
"""Body, and whether JSON is wanted."""
Work = Callable[[Sequence[Request]], Sequence[Any]]
"""Requests -> their answers in order, with a DataError for each bad body."""
Ask = Callable[[Request], Awaitable[Any]]
Collect = Callable[[Callable[[list[Request]], Awaitable[list[Any]]]], Ask]
"""Makes a function of one request from one of many, which it calls with those that wait."""
Segment = Callable[[bytes, bool], Awaitable[Any]]


@dataclass(frozen=True, kw_only=True)
class ServiceSettings:
    """Where the service listens, how many replicas it has, and what they compute together.

    Attributes:
        num_gpus: share of a GPU for each replica.
        max_batch_size: most requests that a replica answers together.
        batch_wait_seconds: how long a batch waits for further requests.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    min_replicas: int = 1
    max_replicas: int = 1
    num_gpus: float = 0.0
    max_batch_size: int = 1
    batch_wait_seconds: float = 0.01

    def __post_init__(self) -> None:
        if not 1 <= self.min_replicas <= self.max_replicas:
            raise ConfigError(
                f"there are {self.min_replicas} to {self.max_replicas} replicas, expected at least "
                "1 and min_replicas not above max_replicas"
            )
        if self.max_batch_size < 1 or self.batch_wait_seconds < 0:
            raise ConfigError(
                f"max_batch_size is {self.max_batch_size} and batch_wait_seconds "
                f"{self.batch_wait_seconds}, expected at least 1 and 0"
            )

    @property
    def requests_per_replica(self) -> int:
        """Requests that a replica holds: a batch in work, and the next one."""
        return 2 * self.max_batch_size + WAITING_REQUESTS


class Replica:
    """Keeps a model, and answers batches of requests, one at a time, in a thread."""

    def __init__(self, make_work: Callable[[], Work], make_collect: Callable[[], Collect]) -> None:
        self.work = make_work()
        self.ask = make_collect()(self.answer_each)

    async def __call__(self, data: bytes, wants_json: bool) -> tuple[str, Any]:
        """Returns the message of a DataError, or "", and the answer."""
        found = await self.ask((data, wants_json))
        if isinstance(found, DataError):
            # Raised here, it would carry Ray's traceback to the client.
            return str(found), None
        if isinstance(found, Exception):
            raise found
        return "", found

    async def answer_each(self, requests: list[Request]) -> list[Any]:
        """Returns the answer of each request, or its error.

        After an error of the whole batch, such as too little memory, requests are answered alone.
        """
        try:
            return list(await asyncio.to_thread(self.work, requests))
        except Exception as error:
            if len(requests) == 1:
                return [error]
            logger.warning("answering %d requests one by one, after: %s", len(requests), error)
        return [(await self.answer_each([request]))[0] for request in requests]


async def answered(ask: Segment, data: bytes, wants_json: bool, losses: type[Exception]) -> Any:
    """Asks a replica, and another one when it dies; asking again changes nothing.

    Args:
        losses: exception of a dead replica.

    Raises:
        DataError: the body is bad.
    """
    for attempt in range(1, ATTEMPTS + 1):
        try:
            message, answer = await ask(data, wants_json)
        except losses as error:
            if attempt == ATTEMPTS:
                raise
            logger.warning("asking another replica, after: %s", type(error).__name__)
        else:
            break
    if message:
        raise DataError(message)
    return answer


def make_application(
    make_work: Callable[[], Work],
    make_app: Callable[[Segment], Any],
    settings: ServiceSettings,
) -> Any:
    """Returns the application of Ray Serve, which must run under the name `APPLICATION`.

    Args:
        make_work: loads the model; it runs once in each replica.
        make_app: makes the ASGI application from a function that asks a replica.

    Raises:
        ConfigError: the packages of the extra `serve` are missing.
    """
    serve = _ray_serve()

    def build() -> Any:
        from ray import serve
        from ray.exceptions import RayActorError

        handle = serve.get_deployment_handle(REPLICA, app_name=APPLICATION)

        async def ask(data: bytes, wants_json: bool) -> Any:
            return await handle.remote(data, wants_json)

        return make_app(partial(answered, ask, losses=RayActorError))

    replica = serve.deployment(
        Replica,
        name=REPLICA,
        ray_actor_options={"num_cpus": 1, "num_gpus": settings.num_gpus},
        max_ongoing_requests=settings.requests_per_replica,
        autoscaling_config={
            "min_replicas": settings.min_replicas,
            "max_replicas": settings.max_replicas,
            "target_ongoing_requests": max(WAITING_REQUESTS, settings.max_batch_size),
        },
    )
    front = serve.deployment(
        serve.ingress(build)(),
        ray_actor_options={"num_cpus": 0},
        max_ongoing_requests=settings.max_replicas * settings.requests_per_replica,
    )
    collect = partial(
        _collect,
        max_batch_size=settings.max_batch_size,
        batch_wait_timeout_s=settings.batch_wait_seconds,
    )
    return front.bind(replica.bind(make_work, collect))


def deploy(
    make_work: Callable[[], Work],
    make_app: Callable[[Segment], Any],
    settings: ServiceSettings,
    blocking: bool = True,
) -> None:
    """Starts the service, and keeps it until this process gets Ctrl-C or SIGTERM.

    Args:
        make_work, make_app: see `make_application`.
    """
    serve = _ray_serve()
    cluster.connect()
    serve.start(http_options={"host": settings.host, "port": settings.port})
    made = make_application(make_work, make_app, settings)
    if not blocking:
        serve.run(made, name=APPLICATION)
        return
    try:
        serve.run(made, name=APPLICATION)
        while True:
            time.sleep(SECONDS_BETWEEN_SIGNALS)
    except KeyboardInterrupt:
        logger.info("the service ends")
    finally:
        # Ray Serve would keep it after this process. A cluster may serve other applications too.
        serve.delete(APPLICATION)


def stop() -> None:
    """Ends the service that `deploy` started."""
    _ray_serve().shutdown()


def _collect(**options: Any) -> Any:
    from ray import serve

    return serve.batch(**options)


def _ray_serve() -> Any:
    try:
        from ray import serve
    except ImportError as error:
        raise ConfigError(
            f"serving needs the package {error.name}: {how_to_install('serve')}"
        ) from error
    return serve
