"""Memory of this process and of the Ray workers it started, from /proc."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SECONDS_BETWEEN_LOOKS = 0.1


@contextmanager
def watched_workers() -> Iterator[dict[int, int]]:
    """Peak bytes of every Ray worker of this process, by process id, filled when the block ends."""
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


def peak_bytes(pid: int) -> int:
    """Largest resident set so far; 0 of a process that has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    found = [int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")]
    return found[0] if found else 0


def is_ray_worker(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"ray::")
    except (FileNotFoundError, ProcessLookupError):
        return False


def descendants(pid: int) -> list[int]:
    """Process ids of all children and theirs."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                # The name in brackets may hold blanks; the parent is the second field after it.
                fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            parents[int(entry.name)] = int(fields[1])
    found = [pid]
    for parent in found:
        found += [child for child, own in parents.items() if own == parent]
    return found[1:]
