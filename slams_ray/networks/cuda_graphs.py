"""Passes of backbones on a GPU as CUDA graphs.

A forward or backward pass starts some hundred kernels, and the host takes longer to start them than
a fast GPU to compute them. A CUDA graph starts all of them at once.
Source: docs.pytorch.org, CUDA semantics, "Partial-network capture".
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

import torch
from torch import nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm

from slams_ray.networks.backbone import Backbone
from slams_ray.networks.frozen_batch_norm import merged_once

logger = logging.getLogger(__name__)

MOST_GRAPHS = 12
"""Graphs of a backbone. Each keeps the memory of a pass; passes of further shapes have none."""
ROWS_TOGETHER = 8
"""A frozen backbone has one graph for up to so many numbers of images."""
_WARM_UP_PASSES = 3


class Graph(Protocol):
    """The captured passes of one shape."""

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Returns the features of (B, 3, H, W) images, for as many images as captured or fewer."""


class _Shape(NamedTuple):
    """What a graph depends on."""

    size: tuple[int, ...]
    dtype: torch.dtype
    needs_gradient: bool
    autocast: torch.dtype | None


class GraphedPasses:
    """Computes the passes of a backbone by graphs, one for each shape that occurs.

    A pass without gradients, or of a backbone whose BatchNorm learns its statistics, has no graph:
    a capture needs several passes, and each would move the statistics.

    Args:
        backbone: with the BatchNorms and the learnt parameters that it keeps.
        capture: makes the graph of a shape.
    """

    def __init__(self, backbone: Backbone, capture: "Capture | None" = None) -> None:
        self.backbone = backbone
        self.graphs: dict[_Shape, Graph] = {}
        # Looking through the modules in every pass takes as long as some kernels.
        self._norms = [m for m in backbone.modules() if isinstance(m, _BatchNorm)]
        self._is_learnt = any(parameter.requires_grad for parameter in backbone.parameters())
        self._capture = capture or CapturedPass
        self._used: set[_Shape] = set()
        self._has_computed = False
        self._has_failed = False

    def start(self) -> None:
        """Tells that the results of all passes so far are no longer needed."""
        self._used.clear()
        self._has_computed = False

    @property
    def cover_all(self) -> bool:
        """Whether graphs computed all passes since `start`, and at least one."""
        return bool(self._used) and not self._has_computed

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        shape = self._shape_of(images)
        # A graph has one place for its result, which the backward pass still needs.
        graph = None if shape is None or shape in self._used else self._graph_of(shape, images)
        if shape is None or graph is None:
            self._has_computed = True
            features: torch.Tensor = self.backbone.body(images)
            return features
        self._used.add(shape)
        return graph(images)

    def _shape_of(self, images: torch.Tensor) -> _Shape | None:
        """Returns the shape of the graph for a pass, None if it must not have one."""
        has_gradient = torch.is_grad_enabled() and (self._is_learnt or images.requires_grad)
        if not has_gradient or any(norm.training for norm in self._norms):
            return None
        rows = len(images)
        if not self._is_learnt:
            # Images do not depend on each other, and no gradient adds up over them.
            rows = -(-rows // ROWS_TOGETHER) * ROWS_TOGETHER
        kind = images.device.type
        autocast = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
        return _Shape((rows, *images.shape[1:]), images.dtype, images.requires_grad, autocast)

    def _graph_of(self, shape: _Shape, images: torch.Tensor) -> Graph | None:
        if shape not in self.graphs and not self._has_failed and len(self.graphs) < MOST_GRAPHS:
            try:
                self.graphs[shape] = self._capture(self.backbone, shape, images)
            except RuntimeError as error:
                self._has_failed = True
                logger.warning(
                    "no CUDA graph for passes of size %s, so steps take longer: %s. Switch "
                    "compute.cuda_graphs off if the training does not continue",
                    shape.size,
                    error,
                )
        return self.graphs.get(shape)


Capture = Callable[[Backbone, _Shape, torch.Tensor], Graph]


class CapturedPass:
    """Forward and backward pass of a backbone for one shape, as two graphs that share memory.

    Raises:
        RuntimeError: the GPU cannot capture the passes, or has too little memory.
    """

    def __init__(self, backbone: Backbone, shape: _Shape, images: torch.Tensor) -> None:
        device = images.device
        self.images = images.new_zeros(shape.size).to(memory_format=torch.channels_last)
        self.images[: len(images)].copy_(images.detach())
        self.images.requires_grad_(shape.needs_gradient)
        learnt = {f"backbone.{n}": p for n, p in backbone.named_parameters() if p.requires_grad}
        self.parameters = tuple(learnt.values())
        # The nodes that add up gradients of the parameters belong to the stream of the training,
        # which must not take part in a capture.
        aliases = {name: value.detach().requires_grad_() for name, value in learnt.items()}
        sources = (*([self.images] if shape.needs_gradient else []), *aliases.values())
        merged_pass = _MergedPass(backbone)

        def forward() -> torch.Tensor:
            # What autocast caches would not be computed again by a replay.
            enabled, dtype = shape.autocast is not None, shape.autocast
            with torch.autocast(device.type, dtype, enabled, cache_enabled=False):
                found: torch.Tensor = functional_call(merged_pass, aliases, (self.images,))
                return found

        def backward(features: torch.Tensor, gradient: torch.Tensor) -> tuple[Any, ...]:
            return torch.autograd.grad(features, sources, gradient, allow_unused=True)

        stream = _capture_stream(device)
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UP_PASSES):
                features = forward()
                backward(features, torch.ones_like(features))
            del features
        torch.cuda.current_stream(device).wait_stream(stream)
        self._forward, self._backward = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
        # Another thread copies batches meanwhile.
        how: dict[str, Any] = {"stream": stream, "capture_error_mode": "thread_local"}
        with torch.cuda.graph(self._forward, **how):
            features = forward()
        self.gradient = torch.zeros_like(features)
        with torch.cuda.graph(self._backward, pool=self._forward.pool(), **how):
            gradients = backward(features, self.gradient)
        self.features = features.detach()
        of_images = gradients[:1] if shape.needs_gradient else (None,)
        self.gradients = (*of_images, *gradients[len(sources) - len(aliases) :])

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = _Replay.apply(self, images, *self.parameters)
        return found

    def replay_forward(self, images: torch.Tensor) -> torch.Tensor:
        """Returns the features of the images, in memory that the next replay overwrites."""
        # Rows beyond are those of earlier images; their gradients are not used.
        with torch.no_grad():
            self.images[: len(images)].copy_(images)
        self._forward.replay()
        return self.features[: len(images)].detach()

    def replay_backward(self, gradient: torch.Tensor) -> list[torch.Tensor | None]:
        """Returns the gradients of images and parameters, in memory as above."""
        self.gradient[: len(gradient)].copy_(gradient)
        self._backward.replay()
        of_images, *others = self.gradients
        own = None if of_images is None else of_images[: len(gradient)].detach()
        return [own, *(None if other is None else other.detach() for other in others)]


class _Replay(torch.autograd.Function):
    """Replays a captured pass. Parameters are arguments, so that gradients reach them."""

    @staticmethod
    def forward(
        context: Any, graph: CapturedPass, images: torch.Tensor, *parameters: torch.Tensor
    ) -> torch.Tensor:
        context.graph = graph
        return graph.replay_forward(images)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(context: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        return None, *context.graph.replay_backward(gradient)


class _MergedPass(nn.Module):
    """A pass of a backbone that merges its BatchNorms itself."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        with merged_once(self.backbone):
            found: torch.Tensor = self.backbone.body(images)
            return found


class Graphs:
    """The graphs of all backbones in a training module.

    Args:
        network: the trained network of the module.
        capture: see `GraphedPasses`.
    """

    def __init__(
        self, module: nn.Module, network: nn.Module, capture: "Capture | None" = None
    ) -> None:
        backbones = (m for m in module.modules() if isinstance(m, Backbone))
        self.of = [GraphedPasses(backbone, capture) for backbone in backbones]
        self._network = network
        self._of_network = [p for p in self.of if p.backbone in set(network.modules())]

    @contextmanager
    def used(self) -> Iterator[None]:
        """Context in which the backbones compute passes by graphs.

        The backward pass of one context must end before the next begins. Frozen BatchNorms of the
        network are merged, unless graphs, which do that too, computed all passes of the last one.
        """
        is_covered = bool(self._of_network) and all(p.cover_all for p in self._of_network)
        with nullcontext() if is_covered else merged_once(self._network):
            try:
                for passes in self.of:
                    passes.start()
                    passes.backbone.passes = passes
                yield
            finally:
                for passes in self.of:
                    passes.backbone.passes = None


@lru_cache
def _capture_stream(device: torch.device) -> torch.cuda.Stream:
    """The stream of all captures and of the passes before them, which prepare libraries for it."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
