"""Training through Ray Train: resume after a crash, two workers, errors."""

import io
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from slams_ray import storage
from slams_ray.errors import TrainingError
from slams_ray.runtime.trainer import fit
from slams_ray.runtime.training_job import TrainingJob
from slams_ray.tasks.optimisation import check_finite

pytestmark = pytest.mark.ray

NUM_STEPS = 6


@dataclass(frozen=True)
class Line:
    """Fits a line; `crash_flag` names a file whose absence makes step 4 fail once."""

    crash_flag: str | None = None
    loss_of_step_3: float = 1.0

    def build(self) -> nn.Module:
        return nn.Linear(1, 1)

    def optimizer(self, module: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)

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

    def chunks(self, rank: int, num_workers: int, first_step: int) -> Iterator[tuple[int, int]]:
        for step in range(first_step, NUM_STEPS):
            yield step, rank

    def reader(self, chunk: tuple[int, int]) -> dict[str, np.ndarray]:
        step, rank = chunk
        both = np.array([[step + 1.0], [step - 3.0]], np.float32) / 4
        return {"x": both[rank : rank + 1] if self.num_workers == 2 else both}

    num_workers: int = 1

    def evaluate(self, module: nn.Module, rank: int, num_workers: int) -> int:
        return rank

    def summarise(self, results: Any) -> dict[str, float]:
        return {"num_results": len(results)}

    def dump(self, module: nn.Module) -> bytes:
        buffer = io.BytesIO()
        torch.save({k: v.cpu() for k, v in module.state_dict().items()}, buffer)
        return buffer.getvalue()


def training_job(output: Path, task: Line, **changes: Any) -> TrainingJob:
    settings: dict[str, Any] = {
        "label": "line",
        "task": task,
        "output_dir": str(output),
        "num_steps": NUM_STEPS,
        "batch_size": 2,
        "checkpoint_every_steps": 2,
        "log_every_steps": 1,
        "seed": 3,
        "num_workers": task.num_workers,
        "min_workers": None,
        "num_threads": None,
        "feed_tasks": 1,
        "device": "cpu",
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
    return output


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


def test_a_finished_training_survives_repeated_kills_before_its_record(
    undisturbed: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    for _ in range(3):
        fit(training_job(output, Line()))
        (output / "training.json").unlink()
    assert fit(training_job(output, Line()))["metrics"] == {"num_results": 1}
    for name, value in weights(output).items():
        assert torch.equal(value, weights(undisturbed)[name])


def test_a_finished_training_is_not_started_again(
    undisturbed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("slams_ray.runtime.cluster.connect", lambda: pytest.fail("Ray started"))
    assert fit(training_job(undisturbed, Line()))["metrics"] == {"num_results": 1}


def test_two_workers_take_the_step_of_one(undisturbed: Path, tmp_path: Path) -> None:
    result = fit(training_job(tmp_path / "out", replace(Line(), num_workers=2)))
    assert result["metrics"] == {"num_results": 2}
    for name, value in weights(tmp_path / "out").items():
        torch.testing.assert_close(value, weights(undisturbed)[name])


class ThreadCount(Line):
    """Tells how many threads its worker has."""

    def evaluate(self, module: nn.Module, rank: int, num_workers: int) -> int:
        return torch.get_num_threads()

    def summarise(self, results: Any) -> dict[str, float]:
        return {"num_threads": results[0]}


def test_a_worker_has_as_many_threads_as_asked_for(ray_cluster: None, tmp_path: Path) -> None:
    asked = len(os.sched_getaffinity(0)) + 1
    result = fit(training_job(tmp_path / "out", ThreadCount(), num_threads=asked))
    assert result["metrics"] == {"num_threads": asked}


def test_a_loss_that_is_not_finite_ends_with_its_remedy(ray_cluster: None, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"loss is nan at step 3: lower training.learning_rate"):
        fit(training_job(tmp_path / "out", Line(loss_of_step_3=float("nan")), log_every_steps=20))
    # Step 3 was the last before a checkpoint, and long before a log point: none was made of it.
    assert [p.name for p in (tmp_path / "out").rglob("step-*")] == ["step-0000002"]
