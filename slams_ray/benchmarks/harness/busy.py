"""Utilisation of the GPUs of this machine, as their driver counts it."""

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
"""utilization.gpu is the per cent of time since the last sample in which a kernel ran."""
_TIME = "%Y/%m/%d %H:%M:%S.%f"


@dataclass
class BusyLog:
    """Samples of GPU utilisation.

    Attributes:
        samples: (time in seconds since the epoch, index of the GPU, share of time it was busy).
        not_understood: lines that could not be parsed.
    """

    samples: list[tuple[float, int, float]] = field(default_factory=list)
    not_understood: list[str] = field(default_factory=list)

    def share(self, began: float, ended: float) -> float:
        """Returns the utilisation of the busiest GPU, averaged over its samples between two times.

        Args:
            began, ended: times in seconds since the epoch.

        Raises:
            ConfigError: there is no sample.
        """
        by_gpu: dict[int, list[float]] = {}
        for when, gpu, share in list(self.samples):
            if began <= when <= ended:
                by_gpu.setdefault(gpu, []).append(share)
        if not by_gpu:
            lines = f" but printed {self.not_understood[:2]}" if self.not_understood else ""
            raise ConfigError(
                f"nvidia-smi gave no sample in the measured {ended - began:.1f} s{lines}: measure "
                "longer, or on a GPU whose utilisation it reports"
            )
        return max(mean(shares) for shares in by_gpu.values())

    def add(self, line: str) -> None:
        """Adds a line that nvidia-smi printed."""
        try:
            when, gpu, per_cent = line.split(", ")
            sample = datetime.strptime(when, _TIME).timestamp(), int(gpu), float(per_cent) / 100
        except ValueError:
            self.not_understood.append(line.strip())
        else:
            self.samples.append(sample)


def check_watchable() -> None:
    """Raises ConfigError if this process cannot watch the GPUs that will work."""
    if shutil.which(COMMAND[0]) is None:
        raise ConfigError(
            "nvidia-smi is not on the PATH, but it reports the utilisation of a GPU: use a machine "
            "with an NVIDIA driver"
        )
    if os.environ.get("RAY_ADDRESS"):
        raise ConfigError(
            "RAY_ADDRESS names a cluster, but only GPUs of this machine can be watched: unset it, "
            "and run the benchmark on the machine with the GPU"
        )


@contextmanager
def watched_gpus() -> Iterator[BusyLog]:
    """Samples the GPUs of CUDA_VISIBLE_DEVICES, or all GPUs, within a with statement."""
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
