"""Ratios of times: two ways of doing the same work, timed in turn."""

import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles

import torch


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of a benchmark.

    Attributes:
        what, against: what is measured, and the alternative it is compared with.
        ratio: what the alternative takes over what ours takes, time unless `what` says otherwise,
            median of the rounds: above 1 ours is better.
        goal: the least ratio that is good enough; 0 where the row only tells.
        met: whether it is.
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
    """Times both in turn, A B A B, after one untimed call of each.

    Args:
        goal: least ratio of their time to ours.
        clock: CPU seconds of this process, which other work on the machine hardly changes;
            time.perf_counter where several processes work.
    """
    ours()
    theirs()
    ratios = []
    for _ in range(rounds):
        own = _seconds(ours, clock)
        ratios.append(_seconds(theirs, clock) / own)
    return row(what, against, ratios, goal=goal)


def row(what: str, against: str, ratios: Sequence[float], *, goal: float) -> Row:
    """The row of ratios measured one after another: their median and quartiles."""
    ratio = median(ratios)
    lower, _, upper = quantiles(ratios, n=4) if len(ratios) > 1 else (ratio, ratio, ratio)
    return Row(
        what=what,
        against=against,
        ratio=ratio,
        goal=goal,
        met=ratio >= goal,
        spread=(lower, upper),
        machine=machine(),
    )


def _seconds(work: Callable[[], object], clock: Callable[[], float]) -> float:
    start = clock()
    work()
    return clock() - start


def machine() -> str:
    """Cores and processor of this machine, and the GPU that this process has used, if any."""
    information = Path("/proc/cpuinfo")
    text = information.read_text() if information.exists() else ""
    names = [line.split(":", 1)[1].strip() for line in text.splitlines() if "model name" in line]
    found = f"{os.cpu_count()} cores, {names[0] if names else platform.machine()}"
    on_gpu = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    return f"{found}, {torch.cuda.get_device_name()}" if on_gpu else found
