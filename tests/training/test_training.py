"""What a step of any training does beside the optimisation."""

import copy
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from slams_ray.config import BackboneConfig, ClassifierConfig
from slams_ray.networks.cpu_convolutions import FastConv2d
from slams_ray.networks.frozen_batch_norm import (
    NormalisedConv2d,
    merge_frozen_batch_norm,
    merged_once,
)
from slams_ray.networks.relu6 import LeanReLU6
from slams_ray.systems.cam import ClassifierTask
from slams_ray.training.training import Training, seed_generators
from tests.tiny_tasks import CLASS_NAMES, TRAININGS

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


@pytest.mark.parametrize("amp", [False, True])
@pytest.mark.parametrize("is_native", [False, True])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_frozen_networks_are_converted_once_where_precision_is_mixed(
    device: str,
    is_native: bool,
    amp: bool,
    make_system_task: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The other kind of device always says the opposite.
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda **_: is_native is (device == "cuda")
    )
    monkeypatch.setattr(
        torch.cpu, "get_capabilities", lambda: {"avx512_bf16": is_native is (device == "cpu")}
    )
    task = make_system_task("slams")
    config = replace(task.training, amp=amp)
    module = Training(task=task, config=config, shard_rows=[], sources=[]).build(device)
    frozen = {layer.weight.dtype for layer in module.encoder.modules() if hasattr(layer, "weight")}
    assert (torch.bfloat16 in frozen) is (amp and is_native)
    assert {parameter.dtype for parameter in module.network.parameters()} == {torch.float32}


@pytest.mark.parametrize("kind", [*TRAININGS, "GAIN"])
def test_gradients_are_those_of_passes_that_share_nothing(
    kind: str,
    make_any_task: Make,
    make_batch: Make,
    rows: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    task = make_any_task(kind)
    batch = make_batch(task, rows)
    gradients = []
    for context in (merged_once, nullcontext):
        monkeypatch.setattr("slams_ray.training.task.merged_once", context)
        torch.manual_seed(0)
        module = task.build().train()
        merge_frozen_batch_norm(module.network)
        assert any(isinstance(m, NormalisedConv2d) for m in module.modules()) is (
            kind != "mctformer"
        )
        loss, _ = module(module.prepare(batch), np.random.default_rng(0), False)
        loss.backward()
        gradients.append({n: p.grad for n, p in module.named_parameters() if p.grad is not None})
    shared, apart = gradients
    assert shared.keys() == apart.keys()
    for name, gradient in shared.items():
        scale = apart[name].abs().max().clamp(min=1e-6)
        torch.testing.assert_close(gradient / scale, apart[name] / scale, atol=1e-3, rtol=0)


def test_passes_of_a_step_share_their_filters(
    make_task: Make, make_batch: Make, rows: list[dict[str, Any]]
) -> None:
    task = make_task("activation", frozen=True)
    module = task.build().train()
    first = next(m for m in module.network.modules() if isinstance(m, NormalisedConv2d))
    used = []
    first.register_forward_hook(lambda own, inputs, output: used.append(own.shared))
    module(make_batch(task, rows), np.random.default_rng(0), True)
    assert len(used) > 1
    assert used[0] is not None
    assert all(shared is used[0] for shared in used)
    assert first.shared is None


@pytest.mark.parametrize("kind", ["encoder", "classifier", "activation", "segmentation"])
def test_networks_compute_channels_last_and_learn_the_same(
    kind: str, make_task: Make, make_batch: Make, rows: list[dict[str, Any]]
) -> None:
    """Convolutions of oneDNN and cuDNN are fastest so."""
    task = make_task(kind, frozen=True)
    # bfloat16 rounds more than the tolerance.
    config = replace(task.config.training, amp=False)
    module = Training(task=task, config=config, shard_rows=[], sources=[]).build().train()
    plain = copy.deepcopy(module).to(memory_format=torch.contiguous_format)
    layouts = []
    for convolution in module.modules():
        if isinstance(convolution, torch.nn.Conv2d):
            assert convolution.weight.is_contiguous(memory_format=torch.channels_last)
            convolution.register_forward_hook(
                lambda own, inputs, output: layouts.append(
                    output.is_contiguous(memory_format=torch.channels_last)
                )
            )
    for trained in (module, plain):
        loss, _ = trained(make_batch(task, rows), np.random.default_rng(0), False)
        loss.backward()
    assert layouts
    assert all(layouts)
    for (name, ours), theirs in zip(module.named_parameters(), plain.parameters(), strict=True):
        if ours.grad is not None:
            torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-5, rtol=1e-4, msg=name)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_trainings_use_the_fast_and_the_lean_layers(device: str) -> None:
    backbone = BackboneConfig(name="mobilenet_v2", weights="none", freeze_batch_norm=False)
    task = ClassifierTask(ClassifierConfig(backbone=backbone), CLASS_NAMES)
    training = Training(task=task, config=task.training, shard_rows=[], sources=[])
    layers = list(training.build(device).modules())
    assert any(isinstance(layer, FastConv2d) for layer in layers) is (device == "cpu")
    assert {type(layer) for layer in layers if isinstance(layer, torch.nn.ReLU6)} == {LeanReLU6}


@pytest.mark.parametrize("cuda_graphs", [False, True])
@pytest.mark.parametrize("accumulation_steps", [1, 2])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_gpu_has_graphs_where_a_batch_is_computed_at_once(
    device: str, accumulation_steps: int, cuda_graphs: bool, make_task: Make
) -> None:
    task = make_task("activation", frozen=True)
    config = replace(task.training, amp=False, accumulation_steps=accumulation_steps)
    training = Training(task=task, config=config, shard_rows=[], sources=[])
    module = training.build(device, cuda_graphs)
    # The next part of an accumulated batch would overwrite the gradients of the last.
    expected = cuda_graphs and device == "cuda" and accumulation_steps == 1
    assert (module.graphs is not None) == expected
    for parameter in module.parameters():
        parameter.grad = torch.zeros_like(parameter)
    assert training.release(module) is None
    assert module.graphs is None
    assert all(parameter.grad is None for parameter in module.parameters())
