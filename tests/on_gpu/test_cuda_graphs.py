"""Trainings whose backbones are computed by CUDA graphs take the steps of those without."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch

from slams_ray.networks.backbone import build_backbone
from slams_ray.networks.cuda_graphs import GraphedPasses, Graphs
from slams_ray.networks.frozen_batch_norm import merge_frozen_batch_norm, merged_once
from tests.networks.test_cuda_graphs import WITHOUT_GRAPHS
from tests.on_gpu.test_trainings import moved, trained, whole_batch
from tests.tiny_tasks import TRAININGS

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine"),
]
Make = Callable[..., Any]


@pytest.fixture(autouse=True)
def _full_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """By default, convolutions round their inputs to TF32, each kernel in its own way."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


@pytest.mark.parametrize("amp", [False, True])
@pytest.mark.parametrize("kind", [*TRAININGS, "GAIN"])
def test_steps_are_those_without_graphs(
    kind: str,
    amp: bool,
    make_any_task: Make,
    make_batch: Make,
    rows: list[dict[str, Any]],
) -> None:
    task = make_any_task(kind, frozen=True)
    batch = whole_batch(task, make_batch, rows)
    steps = []
    for graphed in (False, True):
        torch.manual_seed(0)
        module = task.build()
        module.graphs = Graphs(module, module.network) if graphed else None
        steps.append(moved(*trained(module, batch, "cuda", amp)))
    graphs = [passes for passes in module.graphs.of if passes.graphs]
    assert bool(graphs) == (kind not in WITHOUT_GRAPHS)
    assert steps[0].norm() > 0
    tolerance = 0.05 if amp else 1e-3
    assert (steps[1] - steps[0]).norm() <= tolerance * steps[0].norm()


def test_a_graph_follows_its_parameters_and_images_while_another_thread_copies() -> None:
    torch.manual_seed(0)
    backbone = build_backbone("resnet18", 16).cuda()
    merge_frozen_batch_norm(backbone.eval())
    passes = GraphedPasses(backbone)
    stop = threading.Event()
    copies = []

    def copy() -> None:
        stream = torch.cuda.Stream()
        while not stop.is_set():
            with torch.cuda.stream(stream):
                pinned = torch.rand(1 << 20).pin_memory()
                copies.append(pinned.cuda(non_blocking=True).sum().item())

    thread = threading.Thread(target=copy)
    thread.start()
    try:
        for rows in (4, 4, 2):
            images = torch.rand(rows, 3, 64, 64, device="cuda")
            with merged_once(backbone):
                expected = backbone.body(images)
                expected.square().mean().backward()
            gradients = [p.grad.clone() for p in backbone.parameters()]
            backbone.zero_grad()
            passes.start()
            found = passes(images)
            found.square().mean().backward()
            torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)
            for parameter, gradient in zip(backbone.parameters(), gradients, strict=True):
                torch.testing.assert_close(parameter.grad, gradient, atol=1e-3, rtol=1e-2)
            backbone.zero_grad()
            with torch.no_grad():
                for parameter in backbone.parameters():
                    parameter.mul_(0.99)
    finally:
        stop.set()
        thread.join()
    assert copies
    assert len(passes.graphs) == 2


def test_images_of_a_frozen_network_get_their_gradients_from_a_graph_for_more_images() -> None:
    torch.manual_seed(0)
    backbone = build_backbone("resnet18", 32).cuda().eval().requires_grad_(False)
    passes = GraphedPasses(backbone)
    for rows in (7, 3, 8):
        images = torch.rand(rows, 3, 64, 64, device="cuda", requires_grad=True)
        passes.start()
        found = [
            torch.autograd.grad(run(images).square().sum(), images)[0]
            for run in (backbone.body, passes)
        ]
        # Kernels for more images round in another way.
        assert (found[1] - found[0]).norm() < 1e-3 * found[0].norm()
    assert len(passes.graphs) == 1
