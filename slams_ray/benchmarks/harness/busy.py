"""How busy the GPUs of this machine are while something runs, as their driver counts it."""

import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from statistics import mean

from slams_ray.errors import ConfigError

COMMAND = (
    "nvidia-smi",
    "--query-gpu=timestamp,index,utilization.gpu",
    "--format=csv,noheader,nounits",
    "--loop-ms=200",
)
"""Per cent of the time since the driver's last sample in which any kernel ran."""
_TIME = "%Y/%m/%d %H:%M:%S.%f"


@dataclass
class BusyLog:
    """What the driver said of the GPUs that are watched.

    Attributes:
        samples: (when, which GPU, share of the time it computed).
        not_understood: lines that are no samples.
    """

    samples: list[tuple[float, int, float]] = field(default_factory=list)
    not_understood: list[str] = field(default_factory=list)

    def share(self, began: float, ended: float) -> float:
        """Of the busiest GPU: mean over its samples between two times in seconds since the epoch.

        Raises:
            ConfigError: there is none.
        """
        by_gpu: dict[int, list[float]] = {}
        for when, gpu, share in list(self.samples):
            if began <= when <= ended:
                by_gpu.setdefault(gpu, []).append(share)
        if not by_gpu:
            said = f" but said {self.not_understood[:2]}" if self.not_understood else ""
            raise ConfigError(
                f"nvidia-smi gave no sample in the {ended - began:.1f} s that were measured{said}: "
                "measure longer, or on a GPU that it can tell of"
            )
        return max(mean(shares) for shares in by_gpu.values())

    def add(self, line: str) -> None:
        """A line that the driver printed."""
        try:
            when, gpu, per_cent = line.split(", ")
            sample = datetime.strptime(when, _TIME).timestamp(), int(gpu), float(per_cent) / 100
        except ValueError:
            self.not_understood.append(line.strip())
        else:
            self.samples.append(sample)


def check_watchable() -> None:
    """Raises ConfigError where the GPUs that will work cannot be watched from here."""
    if shutil.which(COMMAND[0]) is None:
        raise ConfigError(
            "nvidia-smi is not on the PATH: it tells how busy a GPU is; take a machine with a "
            "driver of NVIDIA's"
        )
    if os.environ.get("RAY_ADDRESS"):
        raise ConfigError(
            "RAY_ADDRESS names a cluster, but only the GPUs of this machine can be watched: unset "
            "it and run this on the machine with the GPU"
        )


@contextmanager
def watched_gpus() -> Iterator[BusyLog]:
    """Asks for as long as the block runs: for the GPUs of CUDA_VISIBLE_DEVICES, or for all."""
    log = BusyLog()
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    command = (*COMMAND, f"--id={chosen}") if chosen else COMMAND
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
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
        log.add(line)
