"""Measures the HTTP service on loopback against a plain loop over the same network."""

import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch

from slams_ray import storage
from slams_ray.benchmarks.harness.measure import Row, row
from slams_ray.benchmarks.harness.processes import descendants
from slams_ray.benchmarks.harness.requests import Load, load
from slams_ray.benchmarks.harness.shards import Shards
from slams_ray.benchmarks.harness.workers import ray_connection
from slams_ray.benchmarks.measurements.predict import write_network
from slams_ray.errors import TrainingError
from slams_ray.faults.nodes import free_port
from slams_ray.model.model import load_model
from slams_ray.runtime.service import ServiceSettings, stop
from slams_ray.serving.app import ServiceLimits
from slams_ray.stages import serve

REPLICA_TITLE = b"ray::ServeReplica:slams_ray:model"
KILLED_AFTER_SECONDS = 1.0
ROUNDS_WITH_KILL = 3
"""How often the photographs are sent while a replica is killed: long enough to replace it."""


@dataclass(frozen=True, kw_only=True)
class ServeWork:
    """A network, and photographs that are sent to it.

    Attributes:
        model: path of the checkpoint.
        photographs: encoded images.
    """

    model: str
    photographs: Sequence[bytes]
    max_batch_size: int


def open_work(shards: Shards, directory: str, max_batch_size: int) -> ServeWork:
    """Writes a network with random weights, and reads the photographs of the shards."""
    tables = [storage.read_table(path, ["image"]) for path in shards.paths]
    return ServeWork(
        model=write_network(shards.description, directory),
        photographs=[data for table in tables for data in table["image"].to_pylist()],
        max_batch_size=max_batch_size,
    )


@contextmanager
def service(work: ServeWork, num_replicas: int) -> Iterator[str]:
    """Serves the network, and yields the address for its images."""
    settings = ServiceSettings(
        port=free_port(),
        min_replicas=num_replicas,
        max_replicas=num_replicas,
        max_batch_size=work.max_batch_size,
    )
    with ray_connection():
        serve.run(work.model, settings, ServiceLimits(), blocking=False)
        try:
            yield f"http://{settings.host}:{settings.port}/predict"
        finally:
            stop()


def speed_rows(work: ServeWork, concurrency: Sequence[int], rounds: int) -> list[Row]:
    """Returns rows of latency and throughput of one replica, in turn with a plain loop."""
    torch.set_num_threads(1)
    model = load_model(work.model, device="cpu")
    plain: list[float] = []
    loads: dict[int, list[Load]] = {number: [] for number in concurrency}
    with service(work, 1) as address:
        load(address, work.photographs[:4], 1)
        for _ in range(rounds):
            started = time.perf_counter()
            for data in work.photographs:
                model.predict(data).to_png()
            plain.append((time.perf_counter() - started) / len(work.photographs))
            for number, found in loads.items():
                found.append(load(address, work.photographs, number))
    against = f"a plain loop over the same network, {1000 * median(plain):.0f} ms an image"
    rows = []
    for number, found in loads.items():
        what = f"{number} at a time, one replica" if number > 1 else "one at a time"
        p50, p95 = (median(one.milliseconds(percent) for one in found) for percent in (50, 95))
        alone = [1000 * own / one.milliseconds(50) for own, one in zip(plain, found, strict=True)]
        rate = median(one.per_second for one in found)
        together = [own * one.per_second for own, one in zip(plain, found, strict=True)]
        name = f"requests {what}: p50 {p50:.0f} ms, p95 {p95:.0f} ms"
        rows += [
            row(name, against, alone, goal=0),
            row(f"{rate:.1f} requests a second, {what}", against, together, goal=0),
        ]
    return rows


def kill_row(work: ServeWork, concurrency: int) -> Row:
    """Returns the share of requests that are answered while one of two replicas is killed."""
    num_replicas = 2
    with service(work, num_replicas) as address:
        load(address, work.photographs[:4], 1)
        replicas = _replicas()
        if len(replicas) < num_replicas:
            raise TrainingError(f"found {len(replicas)} replicas, expected {num_replicas}")
        timer = threading.Timer(KILLED_AFTER_SECONDS, os.kill, (replicas[0], signal.SIGKILL))
        timer.start()
        found = load(address, [*work.photographs] * ROUNDS_WITH_KILL, concurrency)
        timer.join()
    if found.total_seconds < KILLED_AFTER_SECONDS:
        raise TrainingError(
            f"all requests were answered before a replica was killed, in {found.total_seconds:.1f} "
            "s: use more images"
        )
    total = len(found.seconds)
    return row(
        f"{total - found.num_failed} of {total} requests answered, {concurrency} at a time, while "
        f"one of two replicas is killed; the slowest after {found.seconds.max():.1f} s",
        "all requests",
        [1 - found.num_failed / total],
        goal=1.0,
    )


def _replicas() -> list[int]:
    """Process ids of the replicas that this process's cluster runs."""
    found = []
    for pid in descendants(os.getpid()):
        try:
            if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(REPLICA_TITLE):
                found.append(pid)
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found
