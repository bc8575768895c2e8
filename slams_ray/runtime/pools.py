"""Pools of actors that keep networks, on GPUs or on CPUs."""

from collections.abc import Callable
from dataclasses import dataclass
from math import floor

from slams_ray.runtime import cluster


@dataclass(frozen=True, kw_only=True)
class Pool:
    """Pool of actors that keep state.

    Attributes:
        num_actors: number of actors at the start.
        num_gpus: share of a GPU for each actor.
        grows: whether nodes that join later get actors. Ray does not grow pools of GPU actors.
    """

    num_actors: int
    num_gpus: float
    grows: bool = False


def pool(device: str, gpu_actors: int | None, per_gpu: int) -> Callable[[], Pool]:
    """Returns a pool of `per_gpu` actors on each GPU; without GPUs, one actor per CPU."""
    on_gpus = gpu_pool(device, gpu_actors, per_gpu)

    def resolve() -> Pool:
        return on_gpus() or Pool(num_actors=cluster.num_cpus(), num_gpus=0, grows=True)

    return resolve


def gpu_pool(device: str, gpu_actors: int | None, per_gpu: int) -> Callable[[], Pool | None]:
    """Returns a pool of `per_gpu` actors on each GPU; None without GPUs."""

    def resolve() -> Pool | None:
        if not cluster.use_gpu(device):
            return None
        num_actors = per_gpu * (gpu_actors or cluster.num_gpus())
        return Pool(num_actors=num_actors, num_gpus=share_of_gpu(per_gpu))

    return resolve


def share_of_gpu(num_actors: int) -> float:
    """Returns the share of a GPU for each of several actors, rounded down.

    Ray rounds shares to 0.0001. Six shares of 1/6 would be 1.0002 GPUs, and one actor would wait
    for ever.
    """
    return floor(1e4 / num_actors) / 1e4
