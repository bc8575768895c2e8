"""Batches that the training worker loads itself."""

import threading
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from slams_ray.runtime.training_batches import batches

STEPS_PER_TASK = 3


@dataclass
class Plan:
    """Loading tasks of three steps each; sample i of step s is 10 s + i."""

    num_steps: int
    broken_step: int = -1
    threads: list[int] = field(default_factory=list)

    def batch_share(self, rank: int, num_workers: int) -> int:
        return 4 // num_workers

    def loading_tasks(self, rank: int, num_workers: int, first_step: int) -> list[Any]:
        share = self.batch_share(rank, num_workers)
        steps = range(first_step, self.num_steps)
        return [
            [(step, rank * share, share) for step in steps[start : start + STEPS_PER_TASK]]
            for start in range(0, len(steps), STEPS_PER_TASK)
        ]

    def loader(self, task: list[tuple[int, int, int]]) -> dict[str, np.ndarray]:
        self.threads.append(threading.get_ident())
        if any(step == self.broken_step for step, _, _ in task):
            raise ValueError("image 7 cannot be decoded")
        values = [10 * step + first + i for step, first, share in task for i in range(share)]
        return {"x": np.array(values, np.float32), "y": -np.array(values, np.float32)[:, None]}

    def complete(self, samples: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {**samples, "count": np.array(len(samples["x"]))}


def loaded(
    plan: Plan, rank: int, num_workers: int, first_step: int, num_threads: int | None = 1
) -> Any:
    job: Any = SimpleNamespace(training=plan, data_loading_tasks=0, num_threads=num_threads)
    return batches(job, rank, num_workers, first_step, torch.device("cpu"))


@pytest.mark.parametrize("first_step", [0, 2])
@pytest.mark.parametrize("num_workers", [1, 2])
@pytest.mark.parametrize("num_threads", [1, None])
def test_a_worker_loads_its_share_of_every_step(
    num_threads: int | None, num_workers: int, first_step: int
) -> None:
    share = 4 // num_workers
    for rank in range(num_workers):
        plan = Plan(num_steps=7)
        found = list(loaded(plan, rank, num_workers, first_step, num_threads))
        assert len(found) == 7 - first_step
        for step, batch in enumerate(found, start=first_step):
            expected = [10 * step + rank * share + i for i in range(share)]
            assert batch["x"].tolist() == expected
            assert batch["y"][:, 0].tolist() == [-value for value in expected]
            assert int(batch["count"]) == share


@pytest.mark.parametrize(("num_threads", "is_thread"), [(1, True), (None, False)])
def test_a_thread_loads_in_advance_only_where_the_training_does_not_take_all_cores(
    num_threads: int | None, is_thread: bool
) -> None:
    plan = Plan(num_steps=2 * STEPS_PER_TASK)
    next(loaded(plan, 0, 1, 0, num_threads))
    own = threading.get_ident()
    assert all((thread != own) is is_thread for thread in plan.threads)
    assert plan.threads


@pytest.mark.parametrize("num_threads", [1, None])
def test_nothing_is_loaded_after_the_last_step(num_threads: int | None) -> None:
    assert list(loaded(Plan(num_steps=2), 0, 1, 2, num_threads)) == []


@pytest.mark.parametrize("num_threads", [1, None])
def test_an_image_that_fails_ends_the_training_after_the_batches_before_it(
    num_threads: int | None,
) -> None:
    source = loaded(Plan(num_steps=6, broken_step=4), 0, 1, 0, num_threads)
    assert [int(next(source)["x"][0]) for _ in range(STEPS_PER_TASK)] == [0, 10, 20]
    with pytest.raises(ValueError, match="image 7 cannot be decoded"):
        next(source)
