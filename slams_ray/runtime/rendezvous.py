"""Process group of a training's workers, on the network that Ray uses.

Ray Train's controller imports this module. torch is imported only where several workers connect,
because it takes 2 s.
"""

import os
from dataclasses import dataclass
from typing import Any

import psutil
import ray
from ray.train.backend import Backend, BackendConfig

VARIABLES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")


@dataclass
class NodeAddressConfig(BackendConfig):  # type: ignore[misc]
    """Ray's `TorchConfig`, with gloo and NCCL on the network of the address that Ray uses.

    By default gloo resolves the host name, which gives 127.0.1.1 on Debian and Ubuntu, so workers
    on other nodes cannot connect. NCCL takes the first interface, which may be another network.

    Attributes:
        backend: gloo or nccl; Ray's trainer sets it.
    """

    backend: str | None = None

    @property
    def backend_cls(self) -> Any:
        return _NodeAddressBackend

    @property
    def train_func_context(self) -> Any:
        return self.of_ray().train_func_context

    @property
    def framework(self) -> Any:
        return self.of_ray().framework

    def of_ray(self) -> Any:
        """Returns Ray's configuration for torch."""
        from ray.train.torch import TorchConfig

        return TorchConfig(backend=self.backend)


class _NodeAddressBackend(Backend):  # type: ignore[misc]
    """Starts and ends Ray's process group; a single worker needs none."""

    share_cuda_visible_devices = True

    def on_start(self, worker_group: Any, backend_config: NodeAddressConfig) -> None:
        if len(worker_group) > 1:
            worker_group.execute(use_nodes_interface)
            config = backend_config.of_ray()
            config.backend_cls().on_start(worker_group, config)

    def on_shutdown(self, worker_group: Any, backend_config: NodeAddressConfig) -> None:
        if len(worker_group) > 1:
            config = backend_config.of_ray()
            config.backend_cls().on_shutdown(worker_group, config)


def use_nodes_interface() -> None:
    """Sets the interface of this node's address for gloo and NCCL, unless it is set."""
    address = ray.util.get_node_ip_address()
    for name, addresses in psutil.net_if_addrs().items():
        if any(found.address == address for found in addresses):
            for variable in VARIABLES:
                os.environ.setdefault(variable, name)
