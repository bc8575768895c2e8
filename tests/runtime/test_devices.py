"""Shares of a GPU, kernels of a training, and the network that its workers use."""

import os
import subprocess
import sys

import pytest

from slams_ray.runtime.pools import share_of_gpu


@pytest.mark.parametrize("number", range(1, 33))
def test_all_actors_of_a_gpu_fit_after_rays_rounding(number: int) -> None:
    share = share_of_gpu(number)
    assert share == round(share, 4)
    assert number * round(share * 10_000) <= 10_000
    assert share > 1 / (number + 1)


def run(code: str) -> str:
    """Runs code in a process of its own, because kernels are chosen for a whole process."""
    environment = {k: v for k, v in os.environ.items() if not k.endswith("SOCKET_IFNAME")}
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    ).stdout.strip()


@pytest.mark.parametrize("deterministic", [False, True])
def test_a_training_chooses_the_kernels_of_its_process(deterministic: bool) -> None:
    shown = run(
        "import os, torch; from slams_ray.runtime.devices import choose_kernels; "
        f"choose_kernels({deterministic}); print("
        "torch.are_deterministic_algorithms_enabled(), torch.get_float32_matmul_precision(), "
        "os.environ.get('CUBLAS_WORKSPACE_CONFIG'))"
    )
    workspace = ":4096:8" if deterministic else None
    assert shown == f"{deterministic} high {workspace}"


def test_gloo_and_nccl_use_the_interface_of_the_nodes_address() -> None:
    shown = run(
        "import os, socket, psutil, ray; "
        "name, own = next((n, a) for n, found in psutil.net_if_addrs().items() for a in found "
        "if a.family == socket.AF_INET); "
        "ray.util.get_node_ip_address = lambda: own.address; "
        "from slams_ray.runtime.rendezvous import use_nodes_interface; use_nodes_interface(); "
        "print(os.environ['GLOO_SOCKET_IFNAME'] == os.environ['NCCL_SOCKET_IFNAME'] == name)"
    )
    assert shown == "True"
