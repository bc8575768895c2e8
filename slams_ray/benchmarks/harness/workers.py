"""Workers of Ray Data against as many plain processes: shards per second once all are warm."""

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
from slams_ray.runtime.shards import Pool, ShardInput, ShardJob, ShardWork, Summary, run_shards

PlainLoop = Callable[[Sequence[str], str], None]
"""(shard names, output directory): writes the output of every shard, one after another."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The same shards mapped by Ray's workers and by plain processes.

    Attributes:
        inputs, make_work: as of a `ShardJob`.
        plain: what a plain process does; picklable.
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
    """N workers on N cores against N processes on the same cores, in turn."""
    with cores(num_workers), ray_connection():
        # The first map on a cluster starts actors of Ray itself, an eighth of a core each.
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
    """Shards per second of warm actors, as a stage runs them."""
    return warm_rate(map_by_ray(comparison, num_workers, label), num_workers)


def map_by_ray(
    comparison: Comparison, num_workers: int, label: str, gpus_each: float = 0
) -> list[list[float]]:
    """For each actor the times at which it finished its shards."""
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
    """Shards per second of plain processes side by side."""
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
    """Shards per second of all workers together, from when the last has finished its first.

    Args:
        finished: for each worker the times at which it finished its shards.

    Raises:
        ConfigError: too few shards for every worker to finish two.
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
    """When the last worker has finished its first shard."""
    return max(min(times) for times in finished)


class _SignedWork:
    """Work whose summary says which process did it."""

    def __init__(self, make_work: Callable[[], ShardWork]) -> None:
        self.work = make_work()

    def __call__(self, tables: dict[str, pa.Table], payload: Any) -> tuple[pa.Table, Summary]:
        table, _ = self.work(tables, payload)
        return table, {"pid": os.getpid()}


def _finished(output_dir: str, name: str) -> float:
    """When a shard stood in place, by the clock of the file system."""
    return Path(output_dir, name).stat().st_mtime


def _plain_process(plain: PlainLoop, names: Sequence[str], output_dir: str) -> None:
    import torch

    torch.set_num_threads(1)
    plain(names, output_dir)


@contextmanager
def ray_connection() -> Iterator[None]:
    """A Ray connection, or cluster, that is given up afterwards."""
    # Ray gives its workers a low priority, which on a busy machine would be what is measured.
    os.environ.setdefault("RAY_worker_niceness", "0")
    cluster.connect()
    try:
        yield
    finally:
        cluster.disconnect()


@contextmanager
def cores(number: int) -> Iterator[None]:
    """Leaves this thread, and all it starts, that many of the cores it has."""
    usable = os.sched_getaffinity(0)
    if len(usable) < number:
        raise ConfigError(
            f"{number} workers need as many cores, this process has {len(usable)}: "
            "measure fewer workers, or give it more cores"
        )
    os.sched_setaffinity(0, sorted(usable)[-number:])
    try:
        yield
    finally:
        os.sched_setaffinity(0, usable)
