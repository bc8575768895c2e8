"""The forward and backward pass of a backbone as two CUDA graphs.

Source: docs.pytorch.org, CUDA semantics, "Partial-network capture".
"""

from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.func import functional_call

from slams_ray.networks.backbone import Backbone
from slams_ray.networks.frozen_batch_norm import merged_once

_WARM_UP_PASSES = 3


class Shape(NamedTuple):
    """What a graph depends on.

    Attributes:
        size: (B, 3, H, W) of the captured images.
        autocast: number format of autocast; None without it.
    """

    size: tuple[int, ...]
    dtype: torch.dtype
    needs_gradient: bool
    autocast: torch.dtype | None


class CapturedPass:
    """Forward and backward pass of a backbone for one shape, as two graphs that share memory.

    Raises:
        RuntimeError: the GPU cannot capture the passes, or has too little memory.
    """

    def __init__(self, backbone: Backbone, shape: Shape, images: torch.Tensor) -> None:
        self.images = images.new_zeros(shape.size).to(memory_format=torch.channels_last)
        self.images[: len(images)].copy_(images.detach())
        self.images.requires_grad_(shape.needs_gradient)
        learnt = {f"backbone.{n}": p for n, p in backbone.named_parameters() if p.requires_grad}
        self.parameters = tuple(learnt.values())
        self._shape = shape
        self._pass = _MergedPass(backbone)
        # The nodes that add up gradients of the parameters belong to the stream of the training,
        # which must not take part in a capture.
        self._aliases = {name: value.detach().requires_grad_() for name, value in learnt.items()}
        self._capture()

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = _Replay.apply(self, images, *self.parameters)
        return found

    def compute_forward(self) -> torch.Tensor:
        """Computes the features of `images`, kernel by kernel."""
        dtype = self._shape.autocast
        # What autocast caches would not be computed again by a replay.
        with torch.autocast(self.images.device.type, dtype, dtype is not None, cache_enabled=False):
            found: torch.Tensor = functional_call(self._pass, self._aliases, (self.images,))
            return found

    def compute_backward(self, features: torch.Tensor, gradient: torch.Tensor) -> list[Any]:
        """Computes the gradients of images and parameters, kernel by kernel; None where none."""
        of_images = [self.images] if self._shape.needs_gradient else []
        sources = [*of_images, *self._aliases.values()]
        found = torch.autograd.grad(features, sources, gradient, allow_unused=True)
        return [*found] if of_images else [None, *found]

    def _capture(self) -> None:
        """Records both passes, with the places of features, their gradient, and `gradients`."""
        device = self.images.device
        stream = _capture_stream(device)
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UP_PASSES):
                features = self.compute_forward()
                self.compute_backward(features, torch.ones_like(features))
            del features
        torch.cuda.current_stream(device).wait_stream(stream)
        self.forward_graph, self.backward_graph = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
        # Another thread copies batches meanwhile.
        how: dict[str, Any] = {"stream": stream, "capture_error_mode": "thread_local"}
        with torch.cuda.graph(self.forward_graph, **how):
            features = self.compute_forward()
        self.gradient = torch.zeros_like(features)
        with torch.cuda.graph(self.backward_graph, pool=self.forward_graph.pool(), **how):
            self.gradients = self.compute_backward(features, self.gradient)
        self.features = features.detach()

    def replay_forward(self, images: torch.Tensor) -> torch.Tensor:
        """Returns the features of the images, in memory that the next replay overwrites."""
        # Rows beyond are those of earlier images; their gradients are not used.
        with torch.no_grad():
            self.images[: len(images)].copy_(images)
        self.forward_graph.replay()
        return self.features[: len(images)].detach()

    def replay_backward(self, gradient: torch.Tensor) -> list[torch.Tensor | None]:
        """Returns the gradients of images and parameters, in memory as above."""
        self.gradient[: len(gradient)].copy_(gradient)
        self.backward_graph.replay()
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


@lru_cache
def _capture_stream(device: torch.device) -> torch.cuda.Stream:
    """The stream of all captures and of the passes before them, which prepare libraries for it."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
