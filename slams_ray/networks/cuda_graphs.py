"""Passes of backbones on a GPU as CUDA graphs.

A forward or backward pass starts some hundred kernels, and the host takes longer to start them than
a fast GPU to compute them. A CUDA graph starts all of them at once.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import cached_property
from typing import Protocol

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from slams_ray.networks.backbone import Backbone
from slams_ray.networks.captured_pass import CapturedPass, Shape
from slams_ray.networks.frozen_batch_norm import merged_once

logger = logging.getLogger(__name__)

MOST_GRAPHS = 12
"""Graphs of a backbone. Each keeps the memory of a pass; passes of further shapes have none."""
ROWS_TOGETHER = 8
"""A frozen backbone rounds the number of images up to a multiple of this, to need fewer graphs."""


class Graph(Protocol):
    """The captured passes of one shape."""

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Returns the features of (B, 3, H, W) images, for as many images as captured or fewer."""


class GraphedPasses:
    """Computes the passes of a backbone by graphs, one for each shape that occurs.

    These passes have none, and are computed kernel by kernel:
    - passes without gradients, or with other parameters than the first, as by `functional_call`;
    - passes of a backbone whose BatchNorm learns its statistics, which a capture would move;
    - a second pass of the same shape, see `start`.

    Args:
        backbone: with the BatchNorms and the learnt parameters that it keeps.
        capture: makes the graph of a shape.

    Attributes:
        problem: why passes that could have a graph have none; None if there is no problem.
    """

    def __init__(self, backbone: Backbone, capture: "Capture | None" = None) -> None:
        self.backbone = backbone
        self.graphs: dict[Shape, Graph] = {}
        self.problem: str | None = None
        self._capture = capture or CapturedPass
        self._used: set[Shape] = set()
        self._has_gone_without = False

    # Looking through the modules in every pass would take as long as some kernels.
    @cached_property
    def _norms(self) -> list[_BatchNorm]:
        return [m for m in self.backbone.modules() if isinstance(m, _BatchNorm)]

    @cached_property
    def _parameters(self) -> list[tuple[Mapping[str, object], str, torch.Tensor, bool]]:
        """Where each parameter is held, under which name, itself, and whether it learns."""
        return [
            (module._parameters, name, parameter, parameter.requires_grad)
            for module in self.backbone.modules()
            for name, parameter in module.named_parameters(recurse=False)
        ]

    @cached_property
    def _is_learnt(self) -> bool:
        return any(is_learnt for *_, is_learnt in self._parameters)

    def start(self) -> None:
        """Tells that the results of all passes so far are no longer needed.

        A graph has one place for its result, which the backward pass still needs.
        """
        self._used.clear()
        self._has_gone_without = False

    @property
    def cover_all(self) -> bool:
        """Whether graphs computed all passes since `start`, and at least one."""
        return bool(self._used) and not self._has_gone_without

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        shape = self._shape_of(images)
        graph = None if shape is None or shape in self._used else self._graph_of(shape, images)
        if shape is None or graph is None:
            self._has_gone_without = True
            features: torch.Tensor = self.backbone.body(images)
            return features
        self._used.add(shape)
        return graph(images)

    def _shape_of(self, images: torch.Tensor) -> Shape | None:
        """Returns the shape of the graph for a pass, None if it must not have one."""
        has_gradient = torch.is_grad_enabled() and (self._is_learnt or images.requires_grad)
        has_own_values = all(
            held[name] is parameter and parameter.requires_grad is is_learnt
            for held, name, parameter, is_learnt in self._parameters
        )
        has_statistics = not any(norm.training for norm in self._norms)
        rows = len(images)
        if not (has_gradient and has_own_values and has_statistics and rows):
            return None
        if not self._is_learnt:
            # Images do not depend on each other, and no gradient adds up over them.
            rows = -(-rows // ROWS_TOGETHER) * ROWS_TOGETHER
        kind = images.device.type
        autocast = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
        return Shape((rows, *images.shape[1:]), images.dtype, images.requires_grad, autocast)

    def _graph_of(self, shape: Shape, images: torch.Tensor) -> Graph | None:
        if shape not in self.graphs and self.problem is None and len(self.graphs) < MOST_GRAPHS:
            try:
                self.graphs[shape] = self._capture(self.backbone, shape, images)
            except RuntimeError as error:
                self._give_up(shape, error)
        return self.graphs.get(shape)

    def _give_up(self, shape: Shape, error: RuntimeError) -> None:
        self.problem = f"no CUDA graph for passes of size {shape.size}: {error}"
        logger.warning(self.problem)
        if isinstance(error, torch.OutOfMemoryError):
            # Passes without graphs need the memory that graphs keep.
            self.graphs.clear()
            torch.cuda.empty_cache()


Capture = Callable[[Backbone, Shape, torch.Tensor], Graph]


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
        trained = set(network.modules())
        self._network = network
        self._of_network = [passes for passes in self.of if passes.backbone in trained]

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

    @property
    def problem(self) -> str | None:
        """Why some passes have no graph; None if there is no problem."""
        return next((passes.problem for passes in self.of if passes.problem), None)
