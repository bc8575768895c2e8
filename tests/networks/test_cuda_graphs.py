"""Which passes of a backbone have a graph. Without a GPU a pass takes the place of its graph."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from slams_ray.networks.backbone import Backbone, build_backbone
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


class OnePlace:
    """Gives every pass in the same place, as a graph does, and reads images from another."""

    def __init__(self, backbone: Backbone, shape: Any, images: torch.Tensor) -> None:
        self.backbone, self.sizes = backbone, [len(images)]
        self.images = torch.zeros(shape.size)
        self.features = backbone.body(self.images).detach()

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        self.sizes.append(len(images))
        rest = self.images[len(images) :]
        found = self.backbone.body(torch.cat([images, rest]))
        with torch.no_grad():
            self.features.copy_(found)
        # The values of the place, with the gradient of the pass.
        return (found + (self.features - found).detach())[: len(images)]


def frozen_backbone() -> Backbone:
    torch.manual_seed(0)
    backbone = build_backbone("tiny_resnet", 8)
    merge_frozen_batch_norm(backbone.eval())
    return backbone


def images_of(rows: int, side: int = 16) -> torch.Tensor:
    return torch.rand(rows, 3, side, side)


def steps(task: Any, batch: dict[str, torch.Tensor], graphed: bool) -> tuple[torch.Tensor, Any]:
    """The parameters after two steps, and the module."""
    torch.manual_seed(0)
    module = task.build().train()
    if graphed:
        module.graphs = Graphs(module, module.network, OnePlace)
    optimizer = build_optimizer(module.network, SGD, module.slow_parameters)
    for step in range(2):
        train_step(module, optimizer, batch, step, 10, SGD, 0)
    return torch.cat([p.detach().flatten() for p in module.network.parameters()]), module


@pytest.mark.parametrize("kind", TRAININGS)
def test_a_training_takes_the_same_steps_and_leaves_no_graph_behind(
    kind: str, make_any_task: Make, make_batch: Make, rows: list[dict[str, Any]]
) -> None:
    task = make_any_task(kind, frozen=True)
    samples = {name: values.numpy() for name, values in make_batch(task, rows).items()}
    batch = {name: torch.from_numpy(values) for name, values in with_pairs(samples).items()}
    expected, _ = steps(task, batch, graphed=False)
    found, module = steps(task, batch, graphed=True)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    graphs = [graph for passes in module.graphs.of for graph in passes.graphs.values()]
    assert bool(graphs) == (kind not in WITHOUT_GRAPHS)
    assert all(len(graph.sizes) > 1 for graph in graphs)
    assert all(passes.backbone.passes is None for passes in module.graphs.of)


def test_a_second_pass_of_a_shape_does_not_overwrite_the_first() -> None:
    backbone = frozen_backbone()
    passes = GraphedPasses(backbone, OnePlace)
    first, second = images_of(2), images_of(2)
    for _ in range(2):
        passes.start()
        found = [passes(images) for images in (first, second)]
        torch.testing.assert_close(found, [backbone.body(images) for images in (first, second)])
    graph: Any
    (graph,) = passes.graphs.values()
    assert len(graph.sizes) == 3, "the capture, and one pass in each step"


def test_numbers_of_images_share_the_graph_of_a_frozen_backbone_only() -> None:
    learnt, frozen = frozen_backbone(), frozen_backbone().requires_grad_(False)
    passes = [GraphedPasses(backbone, OnePlace) for backbone in (learnt, frozen)]
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
    passes = [GraphedPasses(backbone, OnePlace) for backbone in (learnt, frozen, with_statistics)]
    with torch.no_grad():
        passes[0](images_of(2))
    for one in passes[1:]:
        one(images_of(2))
    assert not any(one.graphs for one in passes)


def test_a_backbone_has_a_limited_number_of_graphs() -> None:
    passes = GraphedPasses(frozen_backbone(), OnePlace)
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
    assert "compute.cuda_graphs" in record.message


def test_backbones_compute_by_graphs_within_the_context_only() -> None:
    network = nn.Sequential(frozen_backbone())
    images = images_of(1)
    expected = network(images)
    with Graphs(network, network, OnePlace).used():
        torch.testing.assert_close(network(images), expected)
        assert network[0].passes is not None
    assert network[0].passes is None


def test_batch_norms_are_merged_for_the_passes_that_have_no_graph() -> None:
    network = nn.Sequential(frozen_backbone())
    graphs = Graphs(network, network, OnePlace)
    found = []
    for sides in ((16,), (16,), (16, 16), (16,), (16,)):
        with graphs.used():
            found.append(any(m.shared for m in network.modules() if hasattr(m, "shared")))
            for side in sides:
                network(images_of(1, side))
    # The second pass of a shape has none, so the next step expects another.
    assert found == [True, False, False, True, False]
