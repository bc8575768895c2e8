"""A Ray cluster of several nodes on this machine, to have something to kill."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from slams_ray.errors import TrainingError

HOST = "127.0.0.1"
START_SECONDS = 120
STOP_SECONDS = 20


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a node stands.

    Attributes:
        address: that it listens on.
        entrance: put before commands that run there, such as `ip netns exec NAME`.
    """

    address: str = HOST
    entrance: tuple[str, ...] = ()


class Nodes:
    """Starts nodes as `ray start --block` in process groups of their own.

    The pipeline's driver, not this process, is connected to them.

    Args:
        places: of the head and of each node that is added.
    """

    def __init__(self, cpus_per_node: int, places: Sequence[Place] = (Place(), Place())) -> None:
        self.cpus_per_node = cpus_per_node
        self._places = list(places)
        # Ray's sockets stand in it, and their paths must stay under 107 bytes.
        self._directory = Path(tempfile.mkdtemp(prefix="drill", dir="/tmp"))
        # Ray opens its own directory to everybody, so the token stands in another.
        self._secret = Path(tempfile.mkdtemp(prefix="drill-token"))
        token = self._secret / "token"
        token.touch(mode=0o600)
        token.write_text(secrets.token_hex(32))
        self._port = free_port()
        self.environment = {
            "RAY_ADDRESS": f"{places[0].address}:{self._port}",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token),
        }
        self._nodes: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Starts the head and the other nodes."""
        self._launch(
            self._places[0],
            "--head",
            f"--port={self._port}",
            f"--temp-dir={self._directory}",
            "--include-dashboard=false",
        )
        for place in self._places[1:]:
            self.add(place)

    def add(self, place: Place | None = None) -> None:
        """Adds a node, where the last one stood unless told otherwise."""
        self._launch(place or self._places[-1], f"--address={self.environment['RAY_ADDRESS']}")

    def kill_last(self) -> None:
        """SIGKILL for the raylet of the last node and all its workers, as when a machine goes."""
        node = self._nodes.pop()
        for process in self._processes(node):
            kill(process)
        node.wait()

    def workers(self, kinds: tuple[str, ...]) -> list[psutil.Process]:
        """Processes of the cluster that work: their title names one of the given kinds."""
        return [
            process
            for node in self._nodes
            for process in self._processes(node)
            if any(kind in _title(process) for kind in kinds)
        ]

    def stop(self) -> None:
        """Ends all nodes, and removes their directories: sockets, logs and the token."""
        for node in reversed(self._nodes):
            processes = list(self._processes(node))
            node.terminate()
            _, alive = psutil.wait_procs(processes, timeout=STOP_SECONDS)
            for process in alive:
                kill(process)
        self._nodes.clear()
        shutil.rmtree(self._secret)
        # What a killed process of Ray still writes must not end the drill.
        shutil.rmtree(self._directory, ignore_errors=True)

    def _launch(self, place: Place, *arguments: str) -> None:
        log = self._directory / f"node-{len(list(self._directory.glob('node-*')))}.log"
        command = [
            *place.entrance,
            str(Path(sys.executable).with_name("ray")),
            "start",
            "--block",
            f"--node-ip-address={place.address}",
            f"--num-cpus={self.cpus_per_node}",
            "--num-gpus=0",
            "--disable-usage-stats",
            "--dashboard-agent-listen-port=0",
            "--min-worker-port=0",
            "--max-worker-port=0",
            "--object-store-memory=200000000",
            *arguments,
        ]
        with log.open("wb") as output:
            node = subprocess.Popen(
                command,
                env=os.environ | self.environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._nodes.append(node)
        deadline = time.monotonic() + START_SECONDS
        while b"Ray runtime started" not in log.read_bytes():
            if node.poll() is not None or time.monotonic() > deadline:
                said = log.read_text(errors="replace")[-2000:]
                raise TrainingError(f"a Ray node did not start: {said}")
            time.sleep(0.3)

    def _processes(self, node: "subprocess.Popen[bytes]") -> Iterator[psutil.Process]:
        try:
            parent = psutil.Process(node.pid)
            yield from parent.children(recursive=True)
            yield parent
        except psutil.NoSuchProcess:
            return


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""


def kill(process: psutil.Process) -> None:
    """SIGKILL, unless it has ended by itself."""
    try:
        process.send_signal(signal.SIGKILL)
    except psutil.NoSuchProcess:
        return


def free_port() -> int:
    """A port on loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])
