"""Ray Serve: an HTTP interface in front of replicas that keep a model."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from slams_ray.errors import ConfigError, DataError
from slams_ray.runtime import cluster

APPLICATION, REPLICA = "slams_ray", "model"

Work = Callable[[bytes, bool], Any]
"""(body of a request, whether JSON is wanted) -> answer; raises DataError for a bad body."""
Segment = Callable[[bytes, bool], Awaitable[Any]]


@dataclass(frozen=True, kw_only=True)
class ServiceSettings:
    """Where the service listens, and how many replicas it has.

    Attributes:
        num_gpus: share of a GPU for each replica.
        max_waiting: requests for a replica before Ray Serve starts another.
    """

    host: str
    port: int
    min_replicas: int
    max_replicas: int
    num_gpus: float
    max_waiting: int = 2


class Replica:
    """Keeps a model, and answers one request at a time in a thread."""

    def __init__(self, make_work: Callable[[], Work]) -> None:
        self.work = make_work()
        self.lock = asyncio.Lock()

    async def __call__(self, data: bytes, wants_json: bool) -> tuple[str, Any]:
        """Returns the message of a DataError, or "", and the answer."""
        async with self.lock:
            try:
                return "", await asyncio.to_thread(self.work, data, wants_json)
            except DataError as error:
                # Raised here, it would carry Ray's traceback to the client.
                return str(error), None


def deploy(
    make_work: Callable[[], Work],
    make_app: Callable[[Segment], Any],
    settings: ServiceSettings,
    blocking: bool = True,
) -> None:
    """Starts the service, and keeps it until this process is interrupted.

    Args:
        make_work: loads the model; it runs once in each replica.
        make_app: makes the ASGI application from a function that asks a replica.

    Raises:
        ConfigError: the packages of the extra `serve` are missing.
    """
    try:
        from ray import serve
    except ImportError as error:
        raise ConfigError(
            f"serving needs the package {error.name}: install the extra, "
            "pip install 'slams-ray[serve]'"
        ) from error
    cluster.connect()
    serve.start(http_options={"host": settings.host, "port": settings.port})

    def build() -> Any:
        from ray import serve

        handle = serve.get_deployment_handle(REPLICA, app_name=APPLICATION)

        async def segment(data: bytes, wants_json: bool) -> Any:
            message, answer = await handle.remote(data, wants_json)
            if message:
                raise DataError(message)
            return answer

        return make_app(segment)

    replica = serve.deployment(
        Replica,
        name=REPLICA,
        ray_actor_options={"num_cpus": 1, "num_gpus": settings.num_gpus},
        autoscaling_config={
            "min_replicas": settings.min_replicas,
            "max_replicas": settings.max_replicas,
            "target_ongoing_requests": settings.max_waiting,
        },
    )
    front = serve.deployment(serve.ingress(build)(), ray_actor_options={"num_cpus": 0})
    serve.run(front.bind(replica.bind(make_work)), name=APPLICATION, blocking=blocking)
