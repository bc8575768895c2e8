"""Optimisation steps on a GPU: those of a CPU in float32, and close to them in bfloat16."""

import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.multiprocessing.spawn import spawn

from slams_ray.runtime.devices import choose_kernels
from slams_ray.training.optimisation import MIXED, build_optimizer, train_step
from slams_ray.training.task import TrainingModule, with_pairs
from tests.tiny_tasks import TRAINING, TRAININGS

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine"),
]
Make = Callable[..., Any]
Batch = dict[str, torch.Tensor]
State = dict[str, torch.Tensor]
# SGD: AdamW divides by the root of tiny gradients, which turns rounding into visible steps.
CONFIG = replace(TRAINING, optimizer="sgd", learning_rate=0.01, max_gradient_norm=1.0)
NUM_STEPS = 3


def trained(module: TrainingModule, batch: Batch, device: str, amp: bool) -> tuple[State, State]:
    """Takes steps; returns the parameters before and after them."""
    module.to(device).to(memory_format=torch.channels_last).train()
    if amp:
        # As `Training.build` does.
        module.convert_frozen(MIXED)
    before = {name: value.detach().cpu().clone() for name, value in module.named_parameters()}
    optimizer = build_optimizer(module.network, CONFIG, module.slow_parameters)
    on_device = {name: values.to(device) for name, values in batch.items()}
    for step in range(NUM_STEPS):
        config = replace(CONFIG, amp=amp)
        metrics = train_step(module, optimizer, on_device, step, 10, config, 0)
        assert all(torch.isfinite(value) for value in metrics.values())
    after = {name: value.detach().cpu().clone() for name, value in module.named_parameters()}
    return before, after


def whole_batch(task: Any, make_batch: Make, rows: list[dict[str, Any]]) -> Batch:
    samples = {name: values.numpy() for name, values in make_batch(task, rows).items()}
    return {name: torch.from_numpy(values) for name, values in with_pairs(samples).items()}


def moved(before: State, after: State) -> torch.Tensor:
    return torch.cat([(after[name] - before[name]).flatten() for name in before])


@pytest.mark.parametrize("kind", TRAININGS)
def test_steps_are_those_of_a_cpu(
    kind: str,
    make_any_task: Make,
    make_batch: Make,
    rows: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # By default, convolutions round their inputs to TF32.
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    task = make_any_task(kind)
    batch = whole_batch(task, make_batch, rows)
    steps = {}
    for name, device, amp in (
        ("cpu", "cpu", False),
        ("gpu", "cuda", False),
        ("mixed", "cuda", True),
    ):
        torch.manual_seed(0)
        steps[name] = moved(*trained(task.build(), batch, device, amp))
    expected = steps["cpu"].norm()
    assert expected > 0
    assert (steps["gpu"] - steps["cpu"]).norm() < 0.01 * expected
    assert (steps["mixed"] - steps["cpu"]).norm() < 0.3 * expected


def steps_of_a_process(_: int, tasks: dict[str, Any], output: str) -> None:
    with warnings.catch_warnings():
        # torch warns of an operation that is not deterministic.
        warnings.simplefilter("error", UserWarning)
        choose_kernels(deterministic=True)
        found = {}
        for kind, (task, batch) in tasks.items():
            torch.manual_seed(0)
            found[kind] = trained(task.build(), batch, "cuda", amp=True)[1]
    torch.save(found, output)


def test_deterministic_kernels_give_equal_networks(
    make_any_task: Make, make_batch: Make, rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    tasks = {}
    for kind in ("encoder", "cam", "slams", "affinity", "segmentation"):
        task = make_any_task(kind)
        tasks[kind] = task, whole_batch(task, make_batch, rows)
    for number in range(2):
        spawn(steps_of_a_process, (tasks, f"{tmp_path}/{number}"), nprocs=1)
    first, second = (torch.load(tmp_path / str(number)) for number in range(2))
    for kind in tasks:
        for name, value in first[kind].items():
            assert torch.equal(value, second[kind][name]), f"{kind} {name}"


def test_copied_batches_arrive_whole_while_the_gpu_works() -> None:
    from slams_ray.runtime.batch_copies import on_device

    device = torch.device("cuda")
    rng = np.random.default_rng(0)
    batches = [{"image": rng.integers(0, 255, (8, 256, 256, 3), np.uint8)} for _ in range(20)]
    busy = torch.rand(2048, 2048, device=device)
    for batch, copied in zip(batches, on_device(iter(batches), device), strict=True):
        for _ in range(5):
            busy = (busy @ busy).clamp(max=1)
        assert torch.equal(copied["image"].cpu(), torch.from_numpy(batch["image"]))
