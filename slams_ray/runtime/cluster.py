"""Connection to a Ray cluster, and questions about its nodes and devices."""

import json
import logging
import os
import secrets
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import ray
import ray.data
from ray import _raylet
from ray.exceptions import AuthenticationError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from slams_ray.errors import ConfigError
from slams_ray.runtime.devices import has_gpu
from slams_ray.runtime.environment import set_defaults, token_file

logger = logging.getLogger(__name__)
Answer = TypeVar("Answer")

_LOGGING: dict[str, Any] = {
    "logging_level": "WARNING",
    # The output of workers would fill the console with Ray's notices. It stays in Ray's session
    # directory and dashboard; the driver raises their errors and logs their progress.
    "log_to_driver": False,
}


MAX_START_DEATHS = 3
LOADING_TASKS_ON_CPU, MAX_LOADING_TASKS = 2, 16
"""Data-loading tasks of a worker without a GPU, and the largest number of those of any worker."""


def connect(dashboard: bool = False) -> None:
    """Connects once to the cluster at RAY_ADDRESS, or starts a local one with a token.

    Args:
        dashboard: whether a local cluster has Ray's dashboard, on 127.0.0.1.

    Raises:
        ConfigError: no cluster answers at RAY_ADDRESS, or it asks for another token.
    """
    _set_environment()
    if ray.is_initialized():
        return
    if address := os.environ.get("RAY_ADDRESS"):
        _join(address)
        _end_on_sigterm()
        return
    if os.environ["RAY_AUTH_MODE"] == "token":
        _ensure_private_token()
    context = ray.init(address="local", include_dashboard=dashboard, **_LOGGING)
    if dashboard:
        logger.info("dashboard: http://%s; it asks for %s", context.dashboard_url, token_file())
    _end_on_sigterm()


def _set_environment() -> None:
    """Sets the environment for a program that imported Ray itself; jobs set it earlier."""
    mode = os.environ.get("RAY_AUTH_MODE")
    set_defaults()
    if os.environ.get("RAY_AUTH_MODE") != mode and not ray.is_initialized():
        # Ray read the mode when it was imported; this makes it read the mode again.
        _raylet.Config.initialize("")  # type: ignore[attr-defined]


def _join(address: str) -> None:
    mode = os.environ.get("RAY_AUTH_MODE", "not set")
    try:
        ray.init(**_LOGGING)
    except (ConnectionError, AuthenticationError) as error:
        raise ConfigError(
            f"RAY_ADDRESS is {address}, but this process cannot join that cluster ({error}): check "
            f"that it runs. If it has tokens, set RAY_AUTH_MODE to token (here: {mode}), and put "
            f"its token into {token_file()} or RAY_AUTH_TOKEN"
        ) from error


def disconnect() -> None:
    """Leaves the cluster; a local one ends. `connect` may be called again."""
    ray.shutdown()


def _end_on_sigterm() -> None:
    """Exits on SIGTERM, which `ray job stop` sends; ray.init() replaces earlier handlers."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


def _ensure_private_token() -> None:
    """Creates the token, because Ray would make it readable for all users."""
    if os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH"):
        return
    token = token_file()
    if not token.exists():
        token.parent.mkdir(mode=0o700, exist_ok=True)
        descriptor = os.open(token, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(32))
    token.chmod(0o600)


def data_context() -> ray.data.DataContext:
    """Returns this process's Ray Data settings, without Ray's progress bars and execution plans."""
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    # By default a single actor that dies while it starts, for example on a machine that goes away,
    # ends the stage.
    context.max_consecutive_actor_init_deaths = MAX_START_DEATHS
    return context


def num_cpus() -> int:
    """Number of CPUs in the cluster, at least 1."""
    return max(1, int(ray.cluster_resources().get("CPU", 1)))


def check_cpus(name: str, num_cpus: float) -> None:
    """Says that a process waits for a node with enough CPUs; Ray would wait without a word.

    Args:
        name: setting with the number of CPUs.

    Raises:
        ConfigError: no node has them, and no other node can come.
    """
    connect()
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    largest = max((float(resources.get("CPU", 0)) for resources in nodes), default=0.0)
    if num_cpus <= largest:
        return
    problem = f"{name} is {num_cpus:g}, but no node has more than {largest:g} CPUs"
    if is_alone():
        raise ConfigError(f"{problem}: lower it")
    logger.warning("%s: it waits for a larger node", problem)


def num_gpus() -> int:
    """Number of GPUs in the cluster."""
    return int(ray.cluster_resources().get("GPU", 0))


def is_alone() -> bool:
    """Whether the cluster is this machine, which this program started: it gets no other node."""
    return "RAY_ADDRESS" not in os.environ and len(ray.nodes()) == 1


def describe() -> dict[str, str]:
    """Describes the cluster's nodes and resources as MLflow tags; empty without Ray."""
    if not ray.is_initialized():
        return {}
    resources = {k: v for k, v in ray.cluster_resources().items() if k in ("CPU", "GPU", "memory")}
    nodes = sum(node["Alive"] for node in ray.nodes())
    return {"slams.ray_nodes": str(nodes), "slams.ray_resources": json.dumps(resources)}


def node_id() -> str:
    """Id of the node of this process; empty outside Ray."""
    return ray.get_runtime_context().get_node_id() if ray.is_initialized() else ""


def has_node(node: str) -> bool:
    """Whether the node with this id is alive, as far as Ray knows; true outside Ray."""
    return not ray.is_initialized() or any(
        entry["NodeID"] == node and entry["Alive"] for entry in ray.nodes()
    )


def ask_each_node(question: Callable[[str], Answer], device: str) -> list[Answer]:
    """Calls a function with torch's device name on every node that computes.

    If this machine is the only node, the function runs in this process.

    Args:
        device: "auto", "cpu" or "gpu", as in `use_gpu`.

    Returns:
        one answer per node.
    """
    if not ray.is_initialized() and os.environ.get("RAY_ADDRESS"):
        connect()
    if not ray.is_initialized():
        on_gpu = device != "cpu" and has_gpu()
        return [question("cuda" if on_gpu else "cpu")]
    on_gpu = use_gpu(device)
    kind, name = ("GPU", "cuda") if on_gpu else ("CPU", "cpu")
    nodes = [n["NodeID"] for n in ray.nodes() if n["Alive"] and n["Resources"].get(kind)]
    if nodes == [node_id()]:
        return [question(name)]
    task = ray.remote(num_cpus=0)(question)
    answers = [
        task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(
            name
        )
        for node in nodes
    ]
    return list(ray.get(answers))


def assigned_device() -> str:
    """torch's name of the device that Ray assigned to this process; "cpu" outside Ray."""
    # Outside Ray, get_gpu_ids would start a cluster.
    return "cuda" if ray.is_initialized() and ray.get_gpu_ids() else "cpu"


def num_data_loading_tasks() -> int:
    """Number of data-loading tasks for the training worker that calls this.

    On a GPU it is the CPUs per GPU of the node, minus one for the worker itself.
    """
    if assigned_device() == "cpu":
        return LOADING_TASKS_ON_CPU
    own = ray.get_runtime_context().get_node_id()
    resources = next(node["Resources"] for node in ray.nodes() if node["NodeID"] == own)
    share = int(resources["CPU"] / resources["GPU"]) - 1
    return min(max(LOADING_TASKS_ON_CPU, share), MAX_LOADING_TASKS)


def use_gpu(device: str) -> bool:
    """Resolves "auto", "cpu" or "gpu" against the cluster."""
    if device == "gpu" and num_gpus() == 0:
        raise ConfigError("compute.device is gpu, but the cluster has no GPU: use auto or cpu")
    return device != "cpu" and num_gpus() > 0


def check_device(device: str) -> None:
    """Raises ConfigError before any work if a GPU is demanded, and this machine alone has none."""
    if device == "gpu":
        connect()
        # On a cluster a node with a GPU may still come.
        if is_alone():
            use_gpu(device)


def num_trainings(train_workers: int, device: str, train_threads: int | None = None) -> int:
    """Number of trainings that can run at once: by GPUs, and on CPUs by the cores of nodes.

    Args:
        train_threads: cores of a training worker without a GPU; None is all of its node.
    """
    connect()
    if use_gpu(device):
        return max(1, num_gpus() // train_workers)
    cores = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
    workers = [1 if train_threads is None else num // train_threads for num in cores]
    return max(1, sum(workers) // train_workers)
