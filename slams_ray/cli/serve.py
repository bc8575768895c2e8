"""Serve a trained network over HTTP: an image in, a mask out.

python -m jobs.serve runs/demo
"""

from dataclasses import dataclass

import tyro

from slams_ray.cli.command import POSITIONAL_NAMES, guarded, program_name


@dataclass(frozen=True, kw_only=True)
class ServeCommand:
    """POST an image to /predict for a palette PNG, or for JSON with `Accept: application/json`.

    SLAMS_SERVE_TOKEN in the environment is the bearer token that requests must have.
    """

    model: tyro.conf.Positional[str]
    """Workspace, model.pt or MLflow model such as models:/name@best, which every node reaches."""
    host: str = "127.0.0.1"
    """Address to listen on. Others than loopback need a token."""
    port: int = 8000
    """Port to listen on."""
    min_replicas: int = 1
    """Fewest processes that keep the network."""
    max_replicas: int = 1
    """Most processes that keep the network; more start while requests wait."""
    num_gpus: float = 0.0
    """Share of a GPU for each replica; 0 computes on a CPU."""
    max_batch_size: int | None = None
    """Most images that a replica answers together; those of one size share a forward. None is 8
    with a GPU, and 1 without."""
    batch_wait_seconds: float = 0.01
    """How long an incomplete batch waits for further images."""
    max_bytes: int = 16 * 2**20
    """Largest body."""
    max_pixels: int = 25_000_000
    """Largest width times height of an image."""


def _serve(command: ServeCommand) -> None:
    from slams_ray.stages import serve

    batch_size = command.max_batch_size
    if batch_size is None:
        batch_size = serve.default_batch_size(command.num_gpus)
    serve.run(
        command.model,
        serve.ServiceSettings(
            host=command.host,
            port=command.port,
            min_replicas=command.min_replicas,
            max_replicas=command.max_replicas,
            num_gpus=command.num_gpus,
            max_batch_size=batch_size,
            batch_wait_seconds=command.batch_wait_seconds,
        ),
        serve.ServiceLimits(max_bytes=command.max_bytes, max_pixels=command.max_pixels),
    )


def main() -> None:
    """Entry point of `slams serve` and `jobs.serve`."""
    command = tyro.cli(
        ServeCommand, description=__doc__, prog=program_name(), config=POSITIONAL_NAMES
    )
    guarded(lambda: _serve(command))
