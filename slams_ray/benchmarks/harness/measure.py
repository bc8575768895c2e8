"""Measures the ratio of times of two ways to do the same work."""

import logging
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles

import torch

logger = logging.getLogger(__name__)

MOST_GROWTH = 1.1
"""Growth of peak memory that counts as flat."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row of a benchmark.

    Attributes:
        what: what is measured.
        against: alternative that it is compared with.
        ratio: time of the alternative over our time, or the quantity that `what` names; median
            over the rounds. Above 1, ours is faster.
        goal: smallest ratio that is good enough; 0 if there is no goal.
        met: whether the ratio reaches the goal.
        spread: lower and upper quartile of the ratio over the rounds.
        machine: cores and processor.
    """

    what: str
    against: str
    ratio: float
    goal: float
    met: bool
    spread: tuple[float, float]
    machine: str


def compare(
    what: str,
    ours: Callable[[], object],
    against: str,
    theirs: Callable[[], object],
    *,
    goal: float,
    rounds: int,
    clock: Callable[[], float] = time.process_time,
) -> Row:
    """Measures both in turn, A B A B, after one unmeasured call of each.

    Args:
        goal: smallest ratio of their time to ours that is good enough.
        clock: returns seconds. The default counts CPU time of this process, which other work on
            the machine hardly changes. Use time.perf_counter if several processes work.
    """
    ours()
    theirs()
    ratios = []
    for _ in range(rounds):
        own = _seconds(ours, clock)
        ratios.append(_seconds(theirs, clock) / own)
    return row(what, against, ratios, goal=goal)


def row(what: str, against: str, ratios: Sequence[float], *, goal: float) -> Row:
    """Returns the row of repeatedly measured ratios, with their median and quartiles.

    It also logs the row, so that a benchmark that is stopped has shown what it measured.
    """
    ratio = median(ratios)
    lower, _, upper = quantiles(ratios, n=4) if len(ratios) > 1 else (ratio, ratio, ratio)
    logger.info("%s%s: %.3g (%.3g to %.3g)", what, against and f" / {against}", ratio, lower, upper)
    return Row(
        what=what,
        against=against,
        ratio=ratio,
        goal=goal,
        met=ratio >= goal,
        spread=(lower, upper),
        machine=machine(),
    )


def growth_rows(work: str, peaks: Mapping[int, int]) -> list[Row]:
    """Returns rows of peak memory, each against that of the first number of images.

    Args:
        peaks: number of images -> bytes.
    """
    (fewest, first), *others = peaks.items()
    return [
        row(
            f"peak memory of {work}, {num_images} images, {peak / 2**20:.0f} MiB",
            f"{fewest} images, {first / 2**20:.0f} MiB",
            [first / peak],
            goal=1 / MOST_GROWTH,
        )
        for num_images, peak in others
    ]


def _seconds(work: Callable[[], object], clock: Callable[[], float]) -> float:
    start = clock()
    work()
    return clock() - start


def machine() -> str:
    """Describes this machine: cores, processor, and the GPU if this process has used one."""
    information = Path("/proc/cpuinfo")
    text = information.read_text() if information.exists() else ""
    names = [line.split(":", 1)[1].strip() for line in text.splitlines() if "model name" in line]
    found = f"{os.cpu_count()} cores, {names[0] if names else platform.machine()}"
    on_gpu = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    return f"{found}, {torch.cuda.get_device_name()}" if on_gpu else found
