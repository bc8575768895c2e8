"""Memory of this process and of its Ray workers, read from /proc."""

import json
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from slams_ray.runtime import cluster

SECONDS_BETWEEN_LOOKS = 0.1


@contextmanager
def watched_workers() -> Iterator[dict[int, int]]:
    """Records process id -> peak bytes of each Ray worker of this process, in a with statement."""
    peaks: dict[int, int] = {}
    stopped = threading.Event()

    def look() -> None:
        while not stopped.wait(SECONDS_BETWEEN_LOOKS):
            for pid in descendants(os.getpid()):
                if is_ray_worker(pid):
                    peaks[pid] = max(peaks.get(pid, 0), peak_bytes(pid))

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield peaks
    finally:
        stopped.set()
        thread.join()


def peak_of_process(work: Callable[[], object], file: str) -> int:
    """Runs work on Ray in a new process, because a peak never falls.

    Args:
        work: picklable; it gets a connection to Ray.
        file: local path for the answer of that process.

    Returns:
        peak bytes of that process and of its largest Ray worker, added up.
    """
    process = multiprocessing.get_context("spawn").Process(target=_measure, args=(work, file))
    process.start()
    process.join()
    if process.exitcode:
        raise ChildProcessError(f"the process of {file} ended {process.exitcode}")
    return int(json.loads(Path(file).read_bytes()))


def _measure(work: Callable[[], object], file: str) -> None:
    cluster.connect()
    with watched_workers() as workers:
        work()
    cluster.disconnect()
    Path(file).write_text(json.dumps(peak_bytes(os.getpid()) + max(workers.values())))


def peak_bytes(pid: int) -> int:
    """Returns the largest resident set of a process so far; 0 if it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    found = [int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")]
    return found[0] if found else 0


def is_ray_worker(pid: int) -> bool:
    """Whether a process is a Ray worker; False if it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"ray::")
    except (FileNotFoundError, ProcessLookupError):
        return False


def descendants(pid: int) -> list[int]:
    """Returns the process ids of all children and their descendants."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                # The name in brackets can contain spaces. The parent is the second field after it.
                fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            parents[int(entry.name)] = int(fields[1])
    found = [pid]
    for parent in found:
        found += [child for child, own in parents.items() if own == parent]
    return found[1:]
