"""Training through Ray Train: resume after a crash, two workers, errors."""

import io
import json
import os
import platform
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn

from slams_ray import storage
from slams_ray.errors import ArtifactError, ConfigError, TrainingError
from slams_ray.runtime import cluster
from slams_ray.runtime.trainer import fit
from slams_ray.runtime.training_job import TrainingJob
from slams_ray.training.optimisation import check_finite
from tests.runtime import page_faults

pytestmark = pytest.mark.ray

NUM_STEPS = 6
NUM_THREADS = len(os.sched_getaffinity(0)) + 1
"""As no worker has them unless it is asked."""


@dataclass(frozen=True)
class Line:
    """Fits a line; `crash_flag` names a file whose absence makes step 4 fail once."""

    crash_flag: str | None = None
    loss_of_step_3: float = 1.0

    amp: bool = True

    def is_mixed(self, device: str) -> bool:
        """As if the machine of the first worker alone multiplied bfloat16."""
        return self.amp and (not dist.is_initialized() or dist.get_rank() == 0)

    def without_amp(self) -> "Line":
        return replace(self, amp=False)

    def build(self, device: str = "cpu", cuda_graphs: bool = False) -> nn.Module:
        # Several workers have none.
        assert cuda_graphs == (self.num_workers == 1)
        return nn.Linear(1, 1)

    def release(self, module: nn.Module) -> str | None:
        return "the GPU is too small" if self.num_workers == 1 else None

    def optimizer(self, module: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)

    def complete(self, samples: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return dict(samples)

    def step(
        self,
        module: nn.Module,
        optimizer: torch.optim.Optimizer,
        batch: dict[str, torch.Tensor],
        step: int,
        num_steps: int,
    ) -> dict[str, torch.Tensor]:
        if step == 4 and self.crash_flag and not Path(self.crash_flag).exists():
            Path(self.crash_flag).touch()
            raise RuntimeError("the machine is gone")
        loss = (module(batch["x"]) - 2 * batch["x"]).square().mean()
        if step == 3:
            loss = loss * self.loss_of_step_3
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return {"loss": loss.detach()}

    def check(self, metrics: Sequence[Mapping[str, torch.Tensor]], num_steps_done: int) -> None:
        check_finite([m["loss"] for m in metrics], num_steps_done)

    def batch_share(self, rank: int, num_workers: int) -> int:
        return 2 // num_workers

    def loading_tasks(
        self, rank: int, num_workers: int, first_step: int
    ) -> Iterator[tuple[int, int]]:
        for step in range(first_step, NUM_STEPS):
            yield step, rank

    def loader(self, loading_task: tuple[int, int]) -> dict[str, np.ndarray]:
        step, rank = loading_task
        both = np.array([[step + 1.0], [step - 3.0]], np.float32) / 4
        return {"x": both[rank : rank + 1] if self.num_workers == 2 else both}

    num_workers: int = 1

    def evaluate(self, module: nn.Module, rank: int, num_workers: int) -> dict[str, int]:
        return {
            "num_threads": torch.get_num_threads(),
            "page_faults": page_faults.of_large_arrays(),
        }

    def summarise(self, results: Any) -> dict[str, float]:
        return {"num_results": len(results), **results[0]}

    def state(self, module: nn.Module) -> dict[str, torch.Tensor]:
        return module.state_dict()

    def load_state(self, module: nn.Module, state: Mapping[str, torch.Tensor]) -> None:
        module.load_state_dict(state)

    def dump(self, module: nn.Module) -> bytes:
        buffer = io.BytesIO()
        torch.save({k: v.cpu() for k, v in module.state_dict().items()}, buffer)
        return buffer.getvalue()


def training_job(output: Path, task: Line, **changes: Any) -> TrainingJob:
    settings: dict[str, Any] = {
        "label": "line",
        "training": task,
        "output_dir": str(output),
        "num_steps": NUM_STEPS,
        "batch_size": 2,
        "checkpoint_every_steps": 2,
        "log_every_steps": 1,
        "seed": 3,
        "num_workers": task.num_workers,
        "min_workers": None,
        "num_threads": NUM_THREADS,
        "data_loading_tasks": 1,
        "device": "cpu",
        "deterministic": False,
        "cuda_graphs": True,
        "max_failures": 0,
        "tracking_uri": "unused",
        "run_id": None,
    }
    return TrainingJob(**settings | changes)


def weights(output: Path) -> dict[str, torch.Tensor]:
    data = storage.read_bytes(str(output / "model.pt"))
    return torch.load(io.BytesIO(data), weights_only=True)  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def undisturbed(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("undisturbed")
    result = fit(training_job(output, Line()))
    assert [point["step"] for point in result["history"]] == list(range(1, NUM_STEPS + 1))
    assert result["metrics"]["num_results"] == 1
    assert result["precision"] == "bfloat16"
    assert result["graph_problem"] == "the GPU is too small"
    assert result["metrics"]["num_threads"] == NUM_THREADS
    return output


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc keeps freed memory")
def test_a_training_on_a_cpu_makes_large_arrays_from_freed_memory(undisturbed: Path) -> None:
    result = json.loads((undisturbed / "training.json").read_text())
    assert result["metrics"]["page_faults"] < page_faults.FEWEST_OF_NEW_ARRAYS


def test_a_training_that_loads_its_own_images_gives_the_same_weights(
    undisturbed: Path, tmp_path: Path
) -> None:
    fit(training_job(tmp_path, Line(), data_loading_tasks=0))
    for name, value in weights(tmp_path).items():
        assert torch.equal(value, weights(undisturbed)[name])


def test_a_training_that_dies_continues_to_the_same_weights(
    undisturbed: Path, tmp_path: Path
) -> None:
    task = Line(crash_flag=str(tmp_path / "crashed"))
    with pytest.raises(TrainingError, match="the machine is gone"):
        fit(training_job(tmp_path / "out", task))
    assert not (tmp_path / "out" / "model.pt").exists()
    result = fit(training_job(tmp_path / "out", task))
    assert [point["step"] for point in result["history"]] == list(range(1, NUM_STEPS + 1))
    for name, value in weights(tmp_path / "out").items():
        assert torch.equal(value, weights(undisturbed)[name])


@pytest.mark.long
def test_a_finished_training_survives_repeated_kills_before_its_record(
    undisturbed: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    for _ in range(2):
        fit(training_job(output, Line()))
        (output / "training.json").unlink()
    assert fit(training_job(output, Line()))["metrics"]["num_results"] == 1
    for name, value in weights(output).items():
        assert torch.equal(value, weights(undisturbed)[name])


def test_a_finished_training_is_not_started_again(
    undisturbed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("slams_ray.runtime.cluster.connect", lambda: pytest.fail("Ray started"))
    assert fit(training_job(undisturbed, Line()))["metrics"]["num_results"] == 1


def test_more_workers_than_a_machine_has_cores_are_refused_and_not_waited_for(
    ray_cluster: None, tmp_path: Path
) -> None:
    num_cpus = cluster.num_cpus()
    job = training_job(tmp_path, replace(Line(), num_workers=num_cpus + 1))
    expected = rf"line: {num_cpus + 1} training workers need a CPU each, .* has {num_cpus}: lower"
    with pytest.raises(ConfigError, match=expected):
        fit(job)


@dataclass(frozen=True)
class Counted(Line):
    """Counts its attempts by the lines of a file."""

    attempts: str = ""

    def build(self, device: str = "cpu", cuda_graphs: bool = False) -> nn.Module:
        with Path(self.attempts).open("a") as file:
            file.write("built\n")
        return super().build(device, cuda_graphs)

    def num_attempts(self) -> int:
        return len(Path(self.attempts).read_text().splitlines())


def test_a_loss_that_is_not_finite_ends_at_once_with_its_remedy(
    ray_cluster: None, tmp_path: Path
) -> None:
    task = Counted(attempts=str(tmp_path / "attempts"), loss_of_step_3=float("nan"))
    job = training_job(tmp_path / "out", task, log_every_steps=20, max_failures=3)
    with pytest.raises(TrainingError, match=r"loss is nan at step 3: lower training.learning_rate"):
        fit(job)
    assert task.num_attempts() == 1
    # Step 3 was the last before a checkpoint, and long before a log point: none was made of it.
    assert [p.name for p in (tmp_path / "out").rglob("step-*")] == ["step-0000002"]


@dataclass(frozen=True)
class Damaged(Counted):
    """Its data-loading task finds a damaged shard."""

    def loader(self, loading_task: tuple[int, int]) -> dict[str, np.ndarray]:
        raise ArtifactError("shard 000001.parquet is truncated: remove it")


def test_a_damaged_shard_ends_at_once_and_the_error_holds_the_workers_traceback(
    ray_cluster: None, tmp_path: Path
) -> None:
    task = Damaged(attempts=str(tmp_path / "attempts"))
    with pytest.raises(TrainingError, match=r"failed: shard 000001.parquet is truncated") as found:
        fit(training_job(tmp_path / "out", task, max_failures=3))
    assert task.num_attempts() == 1
    (note,) = found.value.__notes__
    assert "trainer.py" in note
    assert "in loader" in note


@dataclass(frozen=True)
class Killed(Counted):
    """The last worker is killed once at step 3."""

    def step(self, *args: Any) -> dict[str, torch.Tensor]:
        rank = torch.distributed.get_rank() if self.num_workers > 1 else 0
        is_first = self.num_attempts() == self.num_workers
        if args[3] == 3 and is_first and rank == self.num_workers - 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().step(*args)


@pytest.mark.long
def test_a_killed_worker_is_retried_and_logs_what_an_undisturbed_one_does(
    undisturbed: Path, tmp_path: Path
) -> None:
    """Checkpoints lie between log points."""
    task = Killed(attempts=str(tmp_path / "attempts"))
    job = training_job(tmp_path / "out", task, log_every_steps=3, max_failures=1)
    found = [(point["step"], point["loss"]) for point in fit(job)["history"]]
    assert task.num_attempts() == 2
    history = json.loads((undisturbed / "training.json").read_text())["history"]
    losses = [point["loss"] for point in history]
    expected = [(end, pytest.approx(np.mean(losses[end - 3 : end]), rel=1e-6)) for end in (3, 6)]
    assert found == expected


def test_two_workers_take_the_step_of_one_also_when_one_is_killed(
    undisturbed: Path, tmp_path: Path
) -> None:
    task = replace(Killed(attempts=str(tmp_path / "attempts")), num_workers=2)
    result = fit(training_job(tmp_path / "out", task, max_failures=1))
    assert task.num_attempts() == 4
    assert result["metrics"]["num_results"] == 2
    # The machine of the second worker does not multiply bfloat16.
    assert result["precision"] == "float32"
    for name, value in weights(tmp_path / "out").items():
        torch.testing.assert_close(value, weights(undisturbed)[name])


@dataclass(frozen=True)
class Drained(Counted):
    """Its node announces its end at step 1 and is gone at step 3."""

    def step(self, *args: Any) -> dict[str, torch.Tensor]:
        from ray.train.v2._internal.execution.context import get_train_context
        from ray.train.v2.api.preemption import PreemptionInfo

        if self.num_attempts() == 1:
            if args[3] == 1:
                deadline = int(1000 * (time.time() + 10))
                found = PreemptionInfo(deadline_ms=deadline, preempted_node_to_ranks={"node": [0]})
                get_train_context().preemption_context.preemption_info = found
            if args[3] == 3:
                # Ray Train ends the workers when the time of the node has come.
                time.sleep(600)
        return super().step(*args)


def test_a_node_that_announces_its_end_is_saved_from_and_costs_no_restart(
    undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "1")
    task = Drained(attempts=str(tmp_path / "attempts"))
    job = training_job(tmp_path / "out", task, checkpoint_every_steps=100, max_failures=0)
    result = fit(job)
    assert [point["step"] for point in result["history"]] == list(range(1, NUM_STEPS + 1))
    assert task.num_attempts() == 2
