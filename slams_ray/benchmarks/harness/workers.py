"""Compares warm Ray Data workers with as many plain processes, in shards per second."""

import multiprocessing
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from slams_ray import storage
from slams_ray.benchmarks.harness.measure import Row, row
from slams_ray.errors import ConfigError
from slams_ray.runtime import cluster
from slams_ray.runtime.pools import Pool
from slams_ray.runtime.shards import ShardInput, ShardJob, ShardWork, Summary, run_shards

PlainLoop = Callable[[Sequence[str], str], None]
"""(shard names, output directory) -> None: writes the output of each shard in turn."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Benchmark comparison of two loops over the same shards: Ray workers and plain processes.

    Attributes:
        what: name of the work, for the row.
        against: name of the plain loop, for the row.
        names: shards to map.
        inputs, make_work: see `ShardJob`.
        plain: loop of a plain process; picklable.
        directory: directory for the outputs of both loops.
    """

    what: str
    against: str
    names: Sequence[str]
    inputs: Mapping[str, ShardInput]
    make_work: Callable[[], ShardWork]
    plain: PlainLoop
    directory: str


def comparison_row(
    comparison: Comparison, num_workers: int, rounds: int, goal: float = 0.95
) -> Row:
    """Returns the row of a comparison: N Ray workers against N processes, on the same cores."""
    with cores(num_workers), ray_connection():
        # The first map on a cluster also starts Ray's own actors, of an eighth of a core each.
        few = replace(comparison, names=comparison.names[:num_workers])
        map_by_ray(few, num_workers, f"ray-{num_workers}-first")
        ratios = [
            ray_rate(comparison, num_workers, f"ray-{num_workers}-{number}")
            / plain_rate(comparison, num_workers, f"plain-{num_workers}-{number}")
            for number in range(rounds)
        ]
    plural = "" if num_workers == 1 else "s"
    return row(
        f"{comparison.what}, {num_workers} warm Ray worker{plural}",
        f"as many {comparison.against}",
        ratios,
        goal=goal,
    )


def ray_rate(comparison: Comparison, num_workers: int, label: str) -> float:
    """Returns shards per second of warm actors, as a stage runs them."""
    return warm_rate(map_by_ray(comparison, num_workers, label), num_workers)


def map_by_ray(
    comparison: Comparison, num_workers: int, label: str, gpus_each: float = 0
) -> list[list[float]]:
    """Maps the shards with Ray, and returns the times at which each actor finished its shards."""
    output_dir = storage.join(comparison.directory, label)
    job = ShardJob(
        label=label,
        names=comparison.names,
        inputs=comparison.inputs,
        output_dir=output_dir,
        fingerprint=label,
        make_work=partial(_SignedWork, comparison.make_work),
        pool=lambda: Pool(num_actors=num_workers, num_gpus=gpus_each),
    )
    finished: dict[int, list[float]] = {}
    for name, summary in run_shards(job):
        finished.setdefault(summary["pid"], []).append(_finished(output_dir, name))
    return list(finished.values())


def plain_rate(comparison: Comparison, num_workers: int, label: str) -> float:
    """Returns shards per second of concurrent plain processes."""
    output_dir = storage.join(comparison.directory, label)
    Path(output_dir).mkdir(parents=True)
    shares = [list(comparison.names[rank::num_workers]) for rank in range(num_workers)]
    spawn = multiprocessing.get_context("spawn")
    processes = [
        spawn.Process(target=_plain_process, args=(comparison.plain, share, output_dir))
        for share in shares
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        if process.exitcode:
            raise ChildProcessError(f"a process of {comparison.against} ended {process.exitcode}")
    return warm_rate([[_finished(output_dir, n) for n in s] for s in shares], num_workers)


def warm_rate(finished: Sequence[Sequence[float]], num_workers: int) -> float:
    """Returns shards per second of all workers, after each has finished its first shard.

    Args:
        finished: times at which each worker finished its shards.

    Raises:
        ConfigError: a worker finished fewer than two shards in that time.
    """
    warm = warm_since(finished)
    later = [sorted(t for t in times if t >= warm) for times in finished]
    if len(finished) < num_workers or min(len(times) for times in later) < 2:
        raise ConfigError(
            f"{sum(map(len, finished))} shards are too few to measure {num_workers} workers: "
            "each must finish several"
        )
    return sum((len(times) - 1) / (times[-1] - times[0]) for times in later)


def warm_since(finished: Sequence[Sequence[float]]) -> float:
    """Returns the time at which every worker has finished its first shard."""
    return max(min(times) for times in finished)


class _SignedWork:
    """Work whose summary contains the id of its process."""

    def __init__(self, make_work: Callable[[], ShardWork]) -> None:
        self.work = make_work()

    def __call__(self, tables: dict[str, pa.Table], payload: Any) -> tuple[pa.Table, Summary]:
        table, _ = self.work(tables, payload)
        return table, {"pid": os.getpid()}


def _finished(output_dir: str, name: str) -> float:
    """Returns the time at which a shard was written, by the clock of the file system."""
    return Path(output_dir, name).stat().st_mtime


def _plain_process(plain: PlainLoop, names: Sequence[str], output_dir: str) -> None:
    import torch

    torch.set_num_threads(1)
    plain(names, output_dir)


@contextmanager
def ray_connection() -> Iterator[None]:
    """Connects to Ray, or starts a cluster, and disconnects at the end."""
    # Ray lowers the priority of its workers, which would distort ratios on a busy machine.
    os.environ.setdefault("RAY_worker_niceness", "0")
    cluster.connect()
    try:
        yield
    finally:
        cluster.disconnect()


@contextmanager
def cores(number: int) -> Iterator[None]:
    """Restricts this thread, and everything it starts, to a number of its cores."""
    usable = os.sched_getaffinity(0)
    if len(usable) < number:
        raise ConfigError(
            f"{number} workers need {number} cores, and this process has {len(usable)}: measure "
            "fewer workers, or use more cores"
        )
    os.sched_setaffinity(0, sorted(usable)[-number:])
    try:
        yield
    finally:
        os.sched_setaffinity(0, usable)
