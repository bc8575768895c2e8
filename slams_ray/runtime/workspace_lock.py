"""Lock that allows one driver at a time in a workspace, and is taken over from a dead driver."""

import json
import logging
import os
import shlex
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from slams_ray import storage
from slams_ray.errors import ConfigError, SlamsError
from slams_ray.redaction import redacted
from slams_ray.runtime.lock_file import LockFile, lock_file

logger = logging.getLogger(__name__)

LOCK_NAME = "driver.lock"
RENEW_SECONDS, STALE_SECONDS, POLL_SECONDS = 10.0, 60.0, 1.0
"""A driver renews its lock at the first interval. For a driver on another machine, it counts as
dead when it has not renewed the lock for `STALE_SECONDS`."""
_LOST = signal.SIGUSR2
"""Signal with which a driver that lost its lock interrupts itself; Ray Tune uses SIGUSR1."""
EXIT_SECONDS = 1.0
"""How long a killed process may take to end."""
_CLOCK_TOLERANCE_SECONDS = 2.0
"""The start time of a process is computed from the clock, which may be corrected."""


@dataclass(frozen=True, kw_only=True)
class Holder:
    """The driver that has locked a workspace.

    Attributes:
        machine: name of the host and of its process-id namespace, which differs in containers.
        started: start of the process in seconds since the epoch.
        since: time when it locked the workspace, as text.
    """

    host: str
    machine: str
    pid: int
    started: float
    command: str
    since: str

    @classmethod
    def current(cls, work: str) -> "Holder":
        """Describes this process."""
        command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
        return cls(
            host=socket.gethostname(),
            machine=_machine(),
            pid=os.getpid(),
            started=psutil.Process().create_time(),
            command=redacted(f"{work} ({command})"),
            since=time.strftime("%Y-%m-%d %H:%M:%S %z"),
        )

    def is_running(self) -> bool:
        """Whether the process still runs on this machine, and its id was not reused."""
        try:
            process = psutil.Process(self.pid)
            if process.status() == psutil.STATUS_ZOMBIE:
                return False
            return abs(process.create_time() - self.started) < _CLOCK_TOLERANCE_SECONDS
        except psutil.NoSuchProcess:
            return False

    def __str__(self) -> str:
        return f"{self.command}, process {self.pid} on {self.host}, since {self.since}"


def _machine() -> str:
    """Name of the host and, on Linux, its process-id namespace."""
    namespace = Path("/proc/self/ns/pid")
    number = namespace.stat().st_ino if namespace.exists() else 0
    return f"{socket.gethostname()}-{number}"


@contextmanager
def workspace_lock(workspace: str, work: str) -> Iterator[None]:
    """Locks a workspace for this driver until the block ends.

    Only local paths and S3 can be locked; other stores log a warning.

    Args:
        work: description of the driver's work, for the message of a second driver.

    Raises:
        ConfigError: another driver uses the workspace, or has taken it over.
    """
    path = storage.join(workspace, LOCK_NAME)
    file = lock_file(path)
    if file is None:
        logger.warning("%s cannot be locked: start only one driver at a time in it", workspace)
        yield
        return
    holder = Holder.current(work)
    try:
        version = _acquire(file, holder, workspace)
    except OSError as error:
        raise ConfigError(
            f"the workspace {workspace} cannot be written ({error}): choose another with "
            "--workspace"
        ) from error
    renewal = _Renewal(file, holder, version, workspace)
    renewal.start()
    try:
        with _interruptible():
            yield
    except KeyboardInterrupt:
        if renewal.is_lost:
            raise ConfigError(
                f"another driver has taken over {workspace}, because this one did not renew its "
                f"lock for {STALE_SECONDS:.0f} s: find out what stopped it, and run one at a time"
            ) from None
        raise
    finally:
        renewal.stop()


@contextmanager
def _interruptible() -> Iterator[None]:
    """Lets `_LOST` interrupt the main thread; a background process would ignore SIGINT.

    A driver in another thread cannot be interrupted; it only logs an error.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(_LOST, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(_LOST, previous)


def _content(holder: Holder) -> bytes:
    return json.dumps(asdict(holder) | {"renewed": time.time()}, indent=1).encode()


def _holder(content: bytes) -> Holder | None:
    """Parses a lock; None if it is half-written or from another version of this package."""
    try:
        fields = json.loads(content)
        fields.pop("renewed")
        return Holder(**fields)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def _acquire(file: LockFile, holder: Holder, workspace: str) -> str:
    """Creates the lock, or replaces that of a dead driver; returns its version."""
    half_written = None
    while True:
        found = file.read()
        if found is None:
            made = file.create(_content(holder))
        else:
            content, version = found
            other = _holder(content)
            if other is None and version != half_written:
                half_written = version
                time.sleep(POLL_SECONDS)
                continue
            if _is_alive(file, other, version):
                raise ConfigError(
                    f"the workspace {workspace} is in use by {other or 'another driver'}: wait for "
                    "its end, stop it, or choose another --workspace"
                )
            logger.info("the driver of %s has died (%s): taking over", workspace, other)
            made = file.replace(_content(holder), version)
        if made is not None:
            return made


def _is_alive(file: LockFile, holder: Holder | None, version: str) -> bool:
    if holder is not None and holder.machine == _machine():
        until = time.monotonic() + EXIT_SECONDS
        while holder.is_running():
            if time.monotonic() >= until:
                return True
            time.sleep(0.05)
        return False
    logger.info("the workspace is locked by %s: waiting until it renews the lock", holder)
    until = time.monotonic() + STALE_SECONDS
    while time.monotonic() < until:
        time.sleep(POLL_SECONDS)
        found = file.read()
        if found is None:
            return False
        if found[1] != version:
            return True
    return False


class _Renewal:
    """Thread that renews the lock, and interrupts the driver if the lock is lost."""

    def __init__(self, file: LockFile, holder: Holder, version: str, workspace: str) -> None:
        self.is_lost = False
        self._file, self._holder, self._version = file, holder, version
        self._workspace = workspace
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._renew, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread and removes the lock, unless another driver has it now."""
        self._stopped.set()
        self._thread.join()
        try:
            self._file.remove(self._version)
        except (OSError, SlamsError) as error:
            logger.warning("the lock of %s cannot be removed (%s)", self._workspace, error)

    def _renew(self) -> None:
        while not self._stopped.wait(RENEW_SECONDS):
            try:
                version = self._file.renew(_content(self._holder), self._version)
            except (OSError, SlamsError) as error:
                logger.warning("the lock of %s cannot be renewed (%s)", self._workspace, error)
                continue
            if version is None:
                self.is_lost = True
                logger.error("another driver has taken over %s", self._workspace)
                if signal.getsignal(_LOST) is signal.default_int_handler:
                    os.kill(os.getpid(), _LOST)
                return
            self._version = version
