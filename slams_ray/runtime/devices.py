"""This machine's devices. torch is imported only when needed."""

import os
import platform
from functools import lru_cache
from pathlib import Path


def has_gpu() -> bool:
    """Whether torch finds a GPU on this machine."""
    import torch

    return torch.cuda.is_available()


def device_name(device: str) -> str:
    """The model of the GPU or CPU behind torch's device name, "cuda" or "cpu"."""
    if device != "cuda":
        return _cpu_name()
    if not has_gpu():
        # The user may declare GPUs to Ray that torch does not find.
        return "unknown GPU"
    import torch

    return str(torch.cuda.get_device_name())


def num_usable_cores() -> int:
    """Number of cores this process may use: a container or taskset may restrict them."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def choose_kernels(deterministic: bool) -> None:
    """Chooses the kernels of a training on a GPU: products in float32 use TF32.

    Args:
        deterministic: takes kernels that give the same sums in every run.

    cuDNN does not measure its kernels first: on an H100 a step then took as long.
    """
    import torch

    torch.set_float32_matmul_precision("high")
    if deterministic:
        # cuBLAS reads this when its first handle is made.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)


@lru_cache(maxsize=1)
def _cpu_name() -> str:
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
