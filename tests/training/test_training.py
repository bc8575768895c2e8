"""What a step of any training does beside the optimisation."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch

from slams_ray.training.training import Training, seed_generators

Make = Callable[..., Any]
FROZEN_BESIDE = {"slams": "encoder.", "occse": "judge.", "clims": "encoder."}
NUM_STEPS = 4


def test_seeding_equals_torchs_and_leaves_nothing_behind() -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    waiting = len(torch.cuda._queued_calls)
    seed_generators(7)
    assert torch.equal(torch.rand(3), expected)
    assert len(torch.cuda._queued_calls) == waiting


@pytest.mark.parametrize("name", FROZEN_BESIDE)
def test_a_training_continues_from_its_state_without_the_frozen_network(
    name: str, make_system_task: Make, make_batch: Make, rows: list[dict[str, Any]]
) -> None:
    task = make_system_task(name)
    training = Training(task=task, config=task.training, shard_rows=[], sources=[])
    batch = make_batch(task, rows)

    def started() -> tuple[Any, torch.optim.Optimizer]:
        torch.manual_seed(3)
        module = training.build().train()
        return module, training.optimizer(module)

    def steps(module: Any, optimizer: torch.optim.Optimizer, numbers: range) -> None:
        for step in numbers:
            training.step(module, optimizer, batch, step, NUM_STEPS)

    module, optimizer = started()
    steps(module, optimizer, range(2))
    state = training.state(module)
    frozen = {entry: v for entry, v in module.state_dict().items() if entry not in state}
    assert frozen
    assert all(entry.startswith(FROZEN_BESIDE[name]) for entry in frozen)
    # Older checkpoints held the frozen network.
    saved = [copy.deepcopy((held, optimizer.state_dict())) for held in (state, state | frozen)]
    steps(module, optimizer, range(2, NUM_STEPS))
    for held, learnt in saved:
        other, other_optimizer = started()
        training.load_state(other, held)
        other_optimizer.load_state_dict(learnt)
        steps(other, other_optimizer, range(2, NUM_STEPS))
        for entry, value in module.state_dict().items():
            assert torch.equal(other.state_dict()[entry], value), entry
