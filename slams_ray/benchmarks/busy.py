"""How busy the GPUs of this machine are while something runs, as their driver counts it."""

import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import mean

from slams_ray.errors import ConfigError

COMMAND = (
    "nvidia-smi",
    "--query-gpu=index,utilization.gpu",
    "--format=csv,noheader,nounits",
    "--loop-ms=200",
)
"""Per cent of the time since the driver's last sample in which any kernel ran."""


@dataclass
class BusyLog:
    """Samples of all GPUs: (when, which GPU, share of the time it computed)."""

    samples: list[tuple[float, int, float]] = field(default_factory=list)

    def share(self, began: float, ended: float) -> float:
        """Of the busiest GPU, the one that is measured where there are several: mean over its
        samples between two times in seconds since the epoch.

        Raises:
            ConfigError: there is none.
        """
        by_gpu: dict[int, list[float]] = {}
        for when, gpu, share in list(self.samples):
            if began <= when <= ended:
                by_gpu.setdefault(gpu, []).append(share)
        if not by_gpu:
            raise ConfigError(
                f"nvidia-smi gave no sample in the {ended - began:.1f} s that were measured: "
                "measure longer, or see what it prints"
            )
        return max(mean(shares) for shares in by_gpu.values())


@contextmanager
def watched_gpus() -> Iterator[BusyLog]:
    """Asks for as long as the block runs.

    Raises:
        ConfigError: there is no nvidia-smi.
    """
    log = BusyLog()
    try:
        process = subprocess.Popen(COMMAND, stdout=subprocess.PIPE, text=True)
    except FileNotFoundError as error:
        raise ConfigError(
            "nvidia-smi is not on the PATH: it tells how busy a GPU is; take a machine with a "
            "driver of NVIDIA's"
        ) from error
    reader = threading.Thread(target=_read, args=(process, log), daemon=True)
    reader.start()
    try:
        yield log
    finally:
        process.terminate()
        process.wait()
        reader.join()


def _read(process: "subprocess.Popen[str]", log: BusyLog) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        gpu, per_cent = line.split(",")
        log.samples.append((time.time(), int(gpu), float(per_cent) / 100))
