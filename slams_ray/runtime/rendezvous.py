"""Network address at which the workers of a training connect."""

import os
from typing import Any

import psutil
import ray
from ray.train.torch import TorchConfig

VARIABLES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")

# Public only through `backend_cls`, whose class is extended here.
_TorchBackend: Any = TorchConfig().backend_cls


class _NodeAddressBackend(_TorchBackend):  # type: ignore[misc]
    def on_start(self, worker_group: Any, backend_config: Any) -> None:
        worker_group.execute(use_nodes_interface)
        super().on_start(worker_group, backend_config)


class NodeAddressConfig(TorchConfig):  # type: ignore[misc]
    """Makes gloo and NCCL use the network of the address that Ray uses.

    By default gloo resolves the host name, which gives 127.0.1.1 on Debian and Ubuntu, so workers
    on other nodes cannot connect. NCCL takes the first interface, which may be another network.
    """

    @property
    def backend_cls(self) -> Any:
        return _NodeAddressBackend


def use_nodes_interface() -> None:
    """Sets the interface of this node's address for gloo and NCCL, unless it is set."""
    address = ray.util.get_node_ip_address()
    for name, addresses in psutil.net_if_addrs().items():
        if any(found.address == address for found in addresses):
            for variable in VARIABLES:
                os.environ.setdefault(variable, name)
