"""Starts a Ray cluster of several nodes on this machine, so that nodes can be killed."""

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
    """Place of a node.

    Attributes:
        address: address that the node listens on.
        entrance: prefix of commands that run there, such as `ip netns exec NAME`.
    """

    address: str = HOST
    entrance: tuple[str, ...] = ()


class Nodes:
    """Starts nodes with `ray start --block`, each in its own process group.

    Drivers connect to the cluster with `environment`. This process does not connect to it.

    Args:
        places: places of the head and of the other nodes, in order.
    """

    def __init__(self, cpus_per_node: int, places: Sequence[Place] = (Place(), Place())) -> None:
        self.cpus_per_node = cpus_per_node
        self._places = list(places)
        # The path is short, because paths of Ray's sockets in it must stay below 107 bytes.
        self._directory = Path(tempfile.mkdtemp(prefix="faults", dir="/tmp"))
        # The token has another directory, because everybody can read Ray's directory.
        self._secret = Path(tempfile.mkdtemp(prefix="faults-token"))
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
        """Adds a node, by default at the last of the places."""
        self._launch(place or self._places[-1], f"--address={self.environment['RAY_ADDRESS']}")

    def kill_last(self) -> None:
        """Kills all processes of the last node with SIGKILL, as when a machine fails."""
        node = self._nodes.pop()
        for process in self._processes(node):
            kill(process)
        node.wait()

    def workers(self, kinds: tuple[str, ...]) -> list[psutil.Process]:
        """Returns the processes of the cluster whose title contains one of the given kinds."""
        return [
            process
            for node in self._nodes
            for process in self._processes(node)
            if any(kind in _title(process) for kind in kinds)
        ]

    def stop(self) -> None:
        """Ends all nodes, and removes their sockets, logs and the token."""
        for node in reversed(self._nodes):
            processes = list(self._processes(node))
            node.terminate()
            _, alive = psutil.wait_procs(processes, timeout=STOP_SECONDS)
            for process in alive:
                kill(process)
        self._nodes.clear()
        shutil.rmtree(self._secret)
        # Ray's processes may still write files here, which must not raise.
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
                output_tail = log.read_text(errors="replace")[-2000:]
                raise TrainingError(f"a Ray node did not start: {output_tail}")
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
    """Sends SIGKILL to a process, unless it has ended."""
    try:
        process.send_signal(signal.SIGKILL)
    except psutil.NoSuchProcess:
        return


def free_port() -> int:
    """Returns a free port of the loopback interface."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])
