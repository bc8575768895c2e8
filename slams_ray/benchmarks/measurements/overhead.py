"""Measures the share of wall time spent in useful work, and start-up cost."""

import json
import resource
import subprocess
import sys
import time
from collections.abc import Sequence

from slams_ray import storage
from slams_ray.benchmarks.harness.measure import Row, row
from slams_ray.config import PipelineConfig
from slams_ray.data.source import generate
from slams_ray.runtime import cluster
from slams_ray.runtime.finished_shards import worked
from slams_ray.runtime.trainer import TRAINING_NAME
from slams_ray.stages import pipeline
from slams_ray.stages.stage import Result

Interval = tuple[float, float]
LEAST_WORK = 0.75
"""Smallest share of useful work: at most 25 % of the wall time is orchestration."""
IMPORT_SECONDS, HELP_SECONDS = 0.3, 2.0
HELP = ["-m", "slams_ray", "pipeline", "--help"]


def pipeline_rows(config: PipelineConfig, workspace: str, recipe: str) -> list[Row]:
    """Returns rows of a whole pipeline on a running cluster, and of each stage."""
    # Generating the data set is not part of a pipeline, because other data sets already exist.
    generate(config.data, workspace)
    cluster.connect()
    started = time.perf_counter()
    results = pipeline.run(config, workspace, recipe).results
    wall = time.perf_counter() - started
    found = {stage: intervals(result) for stage, result in results.items()}
    own = {stage: union_seconds(of_stage) for stage, of_stage in found.items()}
    any_stage = union_seconds([interval for of_stage in found.values() for interval in of_stage])
    rows = [
        _share_row(stage, result.record.seconds, own[stage], goal=0.0)
        for stage, result in results.items()
    ]
    # They differ where trainings work at the same time.
    totals = {"time with any stage at work": any_stage, "work of its stages": sum(own.values())}
    of_all = [
        _share_row("pipeline", wall, seconds, LEAST_WORK, of=name)
        for name, seconds in totals.items()
    ]
    return [*of_all, *rows]


def _share_row(what: str, wall: float, own: float, goal: float, of: str = "its own work") -> Row:
    return row(f"{what}, {wall:.1f} s", f"{of}, {own:.1f} s", [own / wall], goal=goal)


def intervals(result: Result) -> list[Interval]:
    """Returns the intervals in which a stage worked: one per shard, or one per training."""
    files = storage.list_files(result.output_dir)
    if TRAINING_NAME in files:
        began, ended = json.loads(storage.read_bytes(result.path(TRAINING_NAME)))["worked"]
        return [(began, ended)]
    return [worked(result.path(name)) for name in files if name.endswith(".parquet")]


def union_seconds(found: Sequence[Interval]) -> float:
    """Returns the length of the union of intervals, in seconds."""
    total, reached = 0.0, float("-inf")
    for began, ended in sorted(found):
        total += max(0.0, ended - max(began, reached))
        reached = max(reached, ended)
    return total


def start_rows(rounds: int) -> list[Row]:
    """Returns rows of CPU seconds of importing the package and of a job's help, against limits."""
    return [
        _start_row("import slams_ray", ["-c", "import slams_ray"], IMPORT_SECONDS, rounds),
        _start_row("slams pipeline --help", HELP, HELP_SECONDS, rounds),
    ]


def _start_row(what: str, arguments: Sequence[str], limit: float, rounds: int) -> Row:
    _cpu_seconds(arguments)
    taken = [_cpu_seconds(arguments) for _ in range(rounds)]
    fastest, slowest = min(taken), max(taken)
    return row(
        f"{what}, {fastest:.2f} to {slowest:.2f} s",
        f"{limit} s",
        [limit / t for t in taken],
        goal=1.0,
    )


def _cpu_seconds(arguments: Sequence[str]) -> float:
    """Returns the CPU seconds of a Python process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
