"""A batch in parts gives the optimisation step of the whole batch."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.multiprocessing.spawn import spawn
from torch.nn.parallel import DistributedDataParallel

from slams_ray.config import BackboneConfig, SegmentationConfig, TrainingConfig
from slams_ray.refinement.walk.affinity_loss import affinity_sums, pair_counts
from slams_ray.refinement.walk.training import AffinityTask
from slams_ray.segmentation.training import SegmentationTask
from slams_ray.stages.training import network_settings
from slams_ray.training.optimisation import train_step

CLASS_NAMES = ("background", "red", "green", "blue")
BACKBONE = BackboneConfig(name="tiny_resnet", output_stride=8)
# bfloat16 rounds more than the tolerance.
TRAINING = TrainingConfig(
    batch_size=4,
    crop_px=32,
    long_side_px=(28, 40),
    learning_rate=1e-3,
    accumulation_steps=3,
    amp=False,
)
Make = Callable[..., Any]
Rows = list[dict[str, Any]]
Batch = dict[str, torch.Tensor]


def affinity_task(averaging: Any) -> AffinityTask:
    return AffinityTask(TRAINING, BACKBONE, CLASS_NAMES, radius=4, averaging=averaging)


def segmentation_task(averaging: Any) -> SegmentationTask:
    config = SegmentationConfig(
        backbone=BACKBONE, training=TRAINING, averaging=averaging, input_scales=(0.75, 1.0)
    )
    return SegmentationTask(config, CLASS_NAMES)


def pixel_labelled_batch() -> Batch:
    """Four images; one has no label, the others have unequal numbers of labelled pixels."""
    rng = np.random.default_rng(0)
    target = rng.integers(0, 4, (4, 4, 4)).repeat(8, axis=1).repeat(8, axis=2)
    target[1] = 255
    target[2, :, 9:] = 255
    return {
        "image": torch.from_numpy(rng.integers(0, 256, (4, 32, 32, 3)).astype(np.uint8)),
        "box": torch.tensor([[0, 0, 32, 32]] * 4, dtype=torch.int32),
        "target": torch.from_numpy(target.astype(np.uint8)),
    }


def step_once(
    task: Any, batch: Batch, accumulation_steps: int, wrap: Any = lambda module: module
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Gradients and metrics of one step with plain SGD at rate 0."""
    torch.manual_seed(0)
    module = task.build()
    wrapped = wrap(module)
    wrapped.train()
    learning = {n: p for n, p in module.named_parameters() if p.requires_grad}
    config = replace(
        TRAINING, accumulation_steps=accumulation_steps, max_gradient_norm=None, log_every_steps=1
    )
    optimizer = torch.optim.SGD([{"params": list(learning.values()), "lr": 0, "peak_lr": 0}])
    metrics = train_step(wrapped, optimizer, batch, 3, 10, config, 7)
    return {n: p.grad for n, p in learning.items() if p.grad is not None}, metrics


def check_the_same(found: Any, expected: Any) -> None:
    gradients, metrics = found
    expected_gradients, expected_metrics = expected
    assert gradients.keys() == expected_gradients.keys()
    for name, gradient in expected_gradients.items():
        largest = gradient.abs().max().item()
        assert (gradients[name] - gradient).abs().max() <= 1e-6 + 2e-6 * largest, name
    assert max(gradient.abs().max() for gradient in expected_gradients.values()) > 1e-3
    for name in expected_metrics:
        if name.startswith("loss"):
            torch.testing.assert_close(metrics[name], expected_metrics[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("accumulation_steps", [2, 3, 9])
@pytest.mark.parametrize("kind", ["encoder", "classifier", "activation"])
def test_parts_of_a_batch_add_up_where_losses_are_means_over_images(
    kind: str, accumulation_steps: int, make_task: Make, make_batch: Make, rows: Rows
) -> None:
    settings = {"fill": "image", "binarisation_width": 0.1} if kind == "activation" else {}
    task = make_task(kind, frozen=True, **settings)
    batch = make_batch(task, rows)
    check_the_same(step_once(task, batch, accumulation_steps), step_once(task, batch, 1))


@pytest.mark.parametrize("accumulation_steps", [2, 3, 9])
@pytest.mark.parametrize("averaging", ["batch", "image"])
@pytest.mark.parametrize("make", [affinity_task, segmentation_task])
def test_parts_of_a_batch_add_up_where_losses_divide_by_counts(
    make: Any, averaging: str, accumulation_steps: int
) -> None:
    task, batch = make(averaging), pixel_labelled_batch()
    check_the_same(step_once(task, batch, accumulation_steps), step_once(task, batch, 1))


def test_pairs_are_counted_without_the_network() -> None:
    batch = pixel_labelled_batch()
    counts = affinity_sums(torch.randn(4, 8, 8), batch["target"], 4).counts
    assert counts.sum() > 1000
    assert torch.equal(pair_counts(batch["target"], 4), counts)


def test_a_finished_training_is_found_again_with_another_number_of_parts() -> None:
    parts = [
        SegmentationConfig(training=replace(TRAINING, accumulation_steps=number))
        for number in (1, 4)
    ]
    assert network_settings(parts[0]) == network_settings(parts[1])


class CountingDdp(DistributedDataParallel):
    """DDP that counts how often it exchanges gradients."""

    num_exchanges = 0

    def forward(self, *args: Any) -> Any:
        self.num_exchanges += self.require_backward_grad_sync
        return super().forward(*args)


def train_worker(rank: int, root: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{root}/meet", rank=rank, world_size=2)
    share = slice(0, 3) if rank == 0 else slice(3, 4)
    batch = {name: values[share] for name, values in pixel_labelled_batch().items()}
    wrapped: list[CountingDdp] = []

    def wrap(module: nn.Module) -> nn.Module:
        wrapped.append(CountingDdp(module, forward_sync_buffers=False))
        return wrapped[-1]

    for make in (affinity_task, segmentation_task):
        gradients, _ = step_once(make("batch"), batch, 2, wrap)
        torch.save(gradients, f"{root}/{make.__name__}-{rank}.pt")
        assert wrapped[-1].num_exchanges == 1
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_workers_with_parts_take_the_step_of_one_without(tmp_path: Path) -> None:
    spawn(train_worker, (str(tmp_path),), nprocs=2)
    for make in (affinity_task, segmentation_task):
        expected, metrics = step_once(make("batch"), pixel_labelled_batch(), 1)
        for rank in range(2):
            found = torch.load(tmp_path / f"{make.__name__}-{rank}.pt")
            check_the_same((found, metrics), (expected, metrics))
