"""Which passes of a backbone have a graph, and that the places of its results are used in turn.

Without a GPU a replay computes the pass again and writes into the places that the capture chose.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn
from torch.func import functional_call

from slams_ray.networks.backbone import Backbone, build_backbone
from slams_ray.networks.captured_pass import CapturedPass
from slams_ray.networks.cuda_graphs import MOST_GRAPHS, GraphedPasses, Graphs
from slams_ray.networks.frozen_batch_norm import merge_frozen_batch_norm
from slams_ray.training.optimisation import build_optimizer, train_step
from slams_ray.training.task import with_pairs
from tests.tiny_tasks import TRAINING, TRAININGS

Make = Callable[..., Any]
# AdamW divides by the root of tiny gradients, which turns rounding into visible steps.
SGD = replace(TRAINING, optimizer="sgd", learning_rate=0.01)
WITHOUT_GRAPHS = {
    "affinity": "its backbone is frozen, and images have no gradient",
    "seam": "it takes features at several depths",
    "cpn": "the same",
    "mctformer": "a transformer",
}


class Computed:
    """Takes the place of a CUDA graph: a replay computes, and writes where results were."""

    def __init__(self, compute: Callable[[], list[Any]], places: list[Any]) -> None:
        self.compute, self.places, self.num_replays = compute, places, 0

    def replay(self) -> None:
        self.num_replays += 1
        with torch.enable_grad():
            found = self.compute()
        for place, value in zip(self.places, found, strict=True):
            if place is not None:
                place.copy_(value.detach())


class PassWithoutGpu(CapturedPass):
    """A captured pass whose graphs compute, on a CPU."""

    def _capture(self) -> None:
        features = self.compute_forward()
        self.features = features.detach().clone()
        self.gradient = torch.zeros_like(features)
        found = self.compute_backward(features, self.gradient)
        self.gradients = [None if value is None else value.clone() for value in found]
        held: list[torch.Tensor] = []

        def forward() -> list[Any]:
            held[:] = [self.compute_forward()]
            return held

        def backward() -> list[Any]:
            return self.compute_backward(held[0], self.gradient)

        self.forward_graph = Computed(forward, [self.features])  # type: ignore[assignment]
        self.backward_graph = Computed(backward, self.gradients)  # type: ignore[assignment]


def frozen_backbone() -> Backbone:
    torch.manual_seed(0)
    backbone = build_backbone("tiny_resnet", 8)
    merge_frozen_batch_norm(backbone.eval())
    return backbone


def images_of(rows: int, side: int = 16) -> torch.Tensor:
    return torch.rand(rows, 3, side, side)


class _Called(nn.Module):
    """Lets `functional_call` replace the parameters of a backbone within its passes."""

    def __init__(self, backbone: Backbone, passes: GraphedPasses) -> None:
        super().__init__()
        self.backbone, self.passes = backbone, passes

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.passes(images)


def _prefixed(values: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {f"backbone.{name}": value for name, value in values.items()}


def steps(task: Any, batch: dict[str, torch.Tensor], graphed: bool) -> tuple[torch.Tensor, Any]:
    """The parameters after two steps, and the module."""
    torch.manual_seed(0)
    module = task.build().train()
    if graphed:
        module.graphs = Graphs(module, module.network, PassWithoutGpu)
    optimizer = build_optimizer(module.network, SGD, module.slow_parameters)
    for step in range(2):
        train_step(module, optimizer, batch, step, 10, SGD, 0)
    return torch.cat([p.detach().flatten() for p in module.network.parameters()]), module


@pytest.mark.parametrize("kind", [*TRAININGS, "GAIN"])
def test_a_training_takes_the_same_steps_and_leaves_no_graph_behind(
    kind: str,
    make_any_task: Make,
    make_batch: Make,
    rows: list[dict[str, Any]],
) -> None:
    task = make_any_task(kind, frozen=True)
    samples = {name: values.numpy() for name, values in make_batch(task, rows).items()}
    batch = {name: torch.from_numpy(values) for name, values in with_pairs(samples).items()}
    expected, _ = steps(task, batch, graphed=False)
    found, module = steps(task, batch, graphed=True)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    graphs = [graph for passes in module.graphs.of for graph in passes.graphs.values()]
    assert bool(graphs) == (kind not in WITHOUT_GRAPHS)
    assert all(graph.forward_graph.num_replays == 2 for graph in graphs)
    assert all(passes.backbone.passes is None for passes in module.graphs.of)


def test_a_second_pass_of_a_shape_does_not_overwrite_the_first() -> None:
    backbone = frozen_backbone()
    passes = GraphedPasses(backbone, PassWithoutGpu)
    first, second = images_of(2), images_of(2)
    for _ in range(2):
        passes.start()
        found = [passes(images) for images in (first, second)]
        torch.testing.assert_close(found, [backbone.body(images) for images in (first, second)])
    graph: Any
    (graph,) = passes.graphs.values()
    assert graph.forward_graph.num_replays == 2, "one pass in each step"


def test_numbers_of_images_share_the_graph_of_a_frozen_backbone_only() -> None:
    learnt, frozen = frozen_backbone(), frozen_backbone().requires_grad_(False)
    passes = [GraphedPasses(backbone, PassWithoutGpu) for backbone in (learnt, frozen)]
    for rows in (5, 8, 3, 9):
        images = images_of(rows).requires_grad_()
        for one in passes:
            one.start()
            found = one(images)
            torch.testing.assert_close(found, one.backbone.body(images))
            gradients = [
                torch.autograd.grad(features.square().sum(), images)[0]
                for features in (found, one.backbone.body(images))
            ]
            torch.testing.assert_close(*gradients)
    assert [len(one.graphs) for one in passes] == [4, 2]


def test_passes_without_gradients_or_fixed_statistics_have_no_graph() -> None:
    learnt, frozen = frozen_backbone(), frozen_backbone().requires_grad_(False)
    with_statistics = build_backbone("tiny_resnet", 8).train()
    passes = [
        GraphedPasses(backbone, PassWithoutGpu) for backbone in (learnt, frozen, with_statistics)
    ]
    with torch.no_grad():
        passes[0](images_of(2))
    for one in passes[1:]:
        one(images_of(2))
    assert not any(one.graphs for one in passes)


def test_passes_with_other_parameters_or_without_images_have_no_graph() -> None:
    backbone = frozen_backbone()
    passes = GraphedPasses(backbone, PassWithoutGpu)
    images = images_of(2)
    others = {name: value.detach() * 2 for name, value in backbone.named_parameters()}
    with torch.no_grad():
        passes(images)
    found = functional_call(_Called(backbone, passes), _prefixed(others), (images,))
    torch.testing.assert_close(found, functional_call(backbone, others, (images,)))
    passes(images_of(0))
    assert not passes.graphs
    passes(images)
    passes.start()
    # Blocks that learn later.
    backbone.requires_grad_(False)
    backbone.blocks[-1].requires_grad_(True)
    passes(images).sum().backward()
    assert len(passes.graphs) == 1
    assert all(p.grad is not None for p in backbone.blocks[-1].parameters())
    assert all(p.grad is None for p in backbone.blocks[0].parameters())


def test_a_module_may_move_after_its_graphs_were_prepared() -> None:
    backbone = frozen_backbone()
    graphs = Graphs(backbone, backbone, PassWithoutGpu)
    # As to a GPU.
    backbone.to(torch.float64)
    images = images_of(2).double()
    with graphs.used():
        torch.testing.assert_close(backbone(images), backbone.body(images))
    assert graphs.of[0].graphs


def test_a_backbone_has_a_limited_number_of_graphs() -> None:
    passes = GraphedPasses(frozen_backbone(), PassWithoutGpu)
    for side in range(16, 16 + 2 * MOST_GRAPHS):
        passes(images_of(1, side))
    assert len(passes.graphs) == MOST_GRAPHS


def test_a_pass_that_cannot_be_captured_is_computed_and_named_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(*_: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    backbone = frozen_backbone()
    passes = GraphedPasses(backbone, fail)
    for side in (16, 24):
        images = images_of(1, side)
        torch.testing.assert_close(passes(images), backbone.body(images))
    (record,) = caplog.records
    assert "CUDA out of memory" in record.message
    assert passes.problem == record.message


def test_graphs_free_their_memory_where_it_is_short() -> None:
    backbone = frozen_backbone()
    passes = GraphedPasses(backbone, PassWithoutGpu)
    passes(images_of(1))
    assert passes.graphs

    def fail(*_: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    passes._capture = fail
    passes(images_of(1, 24))
    assert not passes.graphs
    passes.start()
    images = images_of(1)
    torch.testing.assert_close(passes(images), backbone.body(images))
    assert not passes.graphs, "it does not try again"


def test_backbones_compute_by_graphs_within_the_context_only() -> None:
    network = nn.Sequential(frozen_backbone())
    images = images_of(1)
    expected = network(images)
    with Graphs(network, network, PassWithoutGpu).used():
        torch.testing.assert_close(network(images), expected)
        assert network[0].passes is not None
    assert network[0].passes is None


def test_batch_norms_are_merged_for_the_passes_that_have_no_graph() -> None:
    network = nn.Sequential(frozen_backbone())
    graphs = Graphs(network, network, PassWithoutGpu)
    found = []
    for sides in ((16,), (16,), (16, 16), (16,), (16,)):
        with graphs.used():
            found.append(any(m.shared for m in network.modules() if hasattr(m, "shared")))
            for side in sides:
                network(images_of(1, side))
    # The second pass of a shape has none, so the next step expects another.
    assert found == [True, False, False, True, False]
