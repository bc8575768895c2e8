"""Run as a script, this file is one of the workers of its own test."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn

from slams_ray.networks.backbone import build_backbone
from slams_ray.networks.batch_norm import (
    SynchronisedBatchNorm2d,
    fold_batch_norm,
    synchronise_batch_norm,
)

NUM_WORKERS = 2
MOMENTUM = 0.3
TOLERANCE = {"plain": 1e-4, "far from zero": 2e-3, "bfloat16": 2e-2}


def whole_batch(case: str = "plain") -> tuple[torch.Tensor, torch.Tensor]:
    """Features (4, 3, 5, 6) whose images differ in mean, and the weights of a scalar loss."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn((4, 3, 5, 6), generator=generator)
    features[2:] += 3
    if case == "far from zero":
        features += 1000
    if case == "bfloat16":
        features = features.bfloat16()
    return features, torch.randn((4, 3, 5, 6), generator=generator)


def one_step(
    norm: nn.Module, features: torch.Tensor, weights: torch.Tensor
) -> dict[str, torch.Tensor]:
    features = features.clone().requires_grad_()
    output = norm(features)
    (output * weights).sum().backward()
    assert features.grad is not None
    gradients = {f"gradient_{n}": p.grad for n, p in norm.named_parameters() if p.grad is not None}
    state = {k: v.clone() for k, v in norm.state_dict().items()}
    return {"output": output.detach(), "input_gradient": features.grad, **gradients, **state}


def run_worker(rank: int, directory: str) -> None:
    dist.init_process_group(
        "gloo", init_method=f"file://{directory}/rendezvous", rank=rank, world_size=NUM_WORKERS
    )
    part = slice(0, 1) if rank == 0 else slice(1, 4)
    for case in TOLERANCE:
        features, weights = whole_batch(case)
        norm = synchronise_batch_norm(nn.BatchNorm2d(3, momentum=MOMENTUM))
        torch.save(one_step(norm, features[part], weights[part]), f"{directory}/{case}{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def worker_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where two workers, now ended, left one file per case and rank."""
    directory = tmp_path_factory.mktemp("workers")
    workers = [
        subprocess.Popen([sys.executable, __file__, str(rank), str(directory)])
        for rank in range(NUM_WORKERS)
    ]
    for worker in workers:
        worker.wait(timeout=300)
    return directory


@pytest.mark.slow
@pytest.mark.parametrize("case", TOLERANCE)
def test_two_workers_with_unequal_shares_compute_what_one_computes(
    case: str, worker_directory: Path
) -> None:
    files = [worker_directory / f"{case}{rank}.pt" for rank in range(NUM_WORKERS)]
    assert all(file.exists() for file in files), "a worker failed, its output is above"
    parts = [torch.load(file) for file in files]
    features, weights = whole_batch(case)
    expected = one_step(nn.BatchNorm2d(3, momentum=MOMENTUM), features.float(), weights)
    limit = TOLERANCE[case]
    for name in ("output", "input_gradient"):
        found = torch.cat([part[name] for part in parts]).float()
        torch.testing.assert_close(found, expected[name], atol=limit, rtol=limit)
    for name in ("gradient_weight", "gradient_bias"):
        found = parts[0][name] + parts[1][name]
        torch.testing.assert_close(found, expected[name], atol=10 * limit, rtol=limit)
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        assert torch.equal(parts[0][name], parts[1][name])
        torch.testing.assert_close(parts[0][name], expected[name], atol=1e-4, rtol=1e-3)


def test_alone_it_computes_what_batch_norm_computes() -> None:
    found = one_step(SynchronisedBatchNorm2d(3), *whole_batch())
    expected = one_step(nn.BatchNorm2d(3), *whole_batch())
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


@pytest.mark.parametrize(
    ("device", "kind"), [("cpu", SynchronisedBatchNorm2d), ("cuda", nn.SyncBatchNorm)]
)
def test_every_batch_norm_is_replaced_with_its_parameters_and_names(
    device: str, kind: type[nn.Module]
) -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Sequential(nn.BatchNorm2d(4)), nn.BatchNorm2d(4))
    module[2].eval().requires_grad_(False)
    before = module.state_dict()
    after = synchronise_batch_norm(module, device).state_dict()
    assert [type(m) for m in module.modules()].count(kind) == 2
    assert not module[2].training
    assert [p.requires_grad for p in module.parameters()] == [True] * 4 + [False] * 2
    assert list(after) == list(before)
    assert all(
        after[name] is value or torch.equal(after[name], value) for name, value in before.items()
    )


@pytest.mark.parametrize("name", ["tiny_resnet", "mobilenet_v2", "resnet18"])
def test_a_folded_network_computes_the_same_without_batch_norm(name: str) -> None:
    torch.manual_seed(0)
    network = build_backbone(name, 8)
    for child in network.modules():
        if isinstance(child, nn.BatchNorm2d):
            child.running_mean.normal_(std=0.1)
            child.running_var.uniform_(0.5, 1.5)
    # In float32 a pre-activation within rounding of 0 can change sign, on some CPUs and not on
    # others, and one changed ReLU moves gradients by 1 %. In float64 none is that close.
    network.eval().double()
    images = torch.randn(2, 3, 40, 40, dtype=torch.float64, requires_grad=True)
    expected = network(images)
    (gradient,) = torch.autograd.grad(expected.square().mean(), images)
    folded = fold_batch_norm(network)
    assert not any(isinstance(child, nn.BatchNorm2d) for child in folded.modules())
    found = folded(images)
    torch.testing.assert_close(found, expected, atol=1e-10, rtol=1e-10)
    (found_gradient,) = torch.autograd.grad(found.square().mean(), images)
    scale = gradient.abs().max()
    torch.testing.assert_close(found_gradient / scale, gradient / scale, atol=1e-10, rtol=1e-10)


if __name__ == "__main__":
    run_worker(int(sys.argv[1]), sys.argv[2])
