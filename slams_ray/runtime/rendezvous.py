"""Under which address the workers of a training find one another."""

import os
from typing import Any

import psutil
import ray
from ray.train.torch import TorchConfig

# Public only through `backend_cls`, whose class is extended here.
_TorchBackend: Any = TorchConfig().backend_cls


class _NodeAddressBackend(_TorchBackend):  # type: ignore[misc]
    def on_start(self, worker_group: Any, backend_config: Any) -> None:
        worker_group.execute(use_nodes_interface)
        super().on_start(worker_group, backend_config)


class NodeAddressConfig(TorchConfig):  # type: ignore[misc]
    """Gloo listens where Ray does.

    Left alone it takes the address that the machine's own name stands for, which is 127.0.1.1 on
    Debian and Ubuntu: workers on other nodes would be refused.
    """

    @property
    def backend_cls(self) -> Any:
        return _NodeAddressBackend


def use_nodes_interface() -> None:
    """Names the network interface of this node's address to gloo, unless the user has named one."""
    address = ray.util.get_node_ip_address()
    for name, addresses in psutil.net_if_addrs().items():
        if any(found.address == address for found in addresses):
            os.environ.setdefault("GLOO_SOCKET_IFNAME", name)
