"""Interfaces of the trainings: a network with its losses, and the batches it learns from."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import nn

from slams_ray.config import BackboneConfig
from slams_ray.networks.backbone import (
    Backbone,
    freeze_batch_norm,
    freeze_batch_norm_affine,
    freeze_blocks,
)
from slams_ray.networks.cuda_graphs import Graphs
from slams_ray.networks.frozen_batch_norm import merge_frozen_batch_norm, merged_once
from slams_ray.networks.precision import convert_frozen
from slams_ray.training.samples import CHOSEN_LABELS, Row, Sampler

Batch = Mapping[str, torch.Tensor]
Array = TypeVar("Array", np.ndarray, torch.Tensor)


class TrainingModule(nn.Module):
    """A network and its loss in one forward pass, so that DDP sees one call per step.

    forward(batch, draw, observe) returns the loss, averaged over images, and detached metrics.
    `draw` is a generator seeded by the random seed and the step, so all workers draw the same
    numbers. `observe` is true at logged steps and requests metrics that cost extra time.

    Attributes:
        slow_parameters: prefixes of the parameters of `network` that learn at the learning rate.
            The others are new and learn at `head_multiplier` times it.
        step: number of the step, from 0, for losses that not every step computes.
        progress: share of the steps that are done, in [0, 1), for weights that change in training.
        graphs: compute the passes of the backbones on a GPU; None computes them kernel by kernel.
    """

    slow_parameters: tuple[str, ...] = ("backbone.",)
    step: int = 0
    progress: float = 0.0
    graphs: Graphs | None = None

    def __init__(self, network: nn.Module, backbone: BackboneConfig) -> None:
        super().__init__()
        self.network = network
        self.freeze_batch_norm = backbone.freeze_batch_norm
        freeze_blocks(self._backbone, backbone.frozen_blocks)
        if backbone.freeze_batch_norm_affine:
            freeze_batch_norm_affine(self._backbone)
        if backbone.freeze_batch_norm:
            merge_frozen_batch_norm(self._backbone)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        graphs = self.graphs
        with merged_once(self.network) if graphs is None else graphs.used():
            return super().__call__(*args, **kwargs)

    def prepare(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Adds what the loss must know of the global batch, one row for each image.

        It is called once a step, on the whole share of a worker, before the share is split for
        gradient accumulation. A `forward` that gets a batch without it takes the batch as whole.
        """
        return batch

    def convert_frozen(self, dtype: torch.dtype) -> None:
        """Converts frozen networks beside the trained one, for use in autocast."""
        for name, part in self.named_children():
            # The trained network keeps float32 also where it is frozen: its checkpoint has it.
            if name != "network":
                convert_frozen(part, dtype)

    @property
    def exported(self) -> nn.Module:
        """The network that the checkpoint holds."""
        return self.network

    @property
    def _backbone(self) -> Backbone:
        backbone = self.network.get_submodule("backbone")
        assert isinstance(backbone, Backbone)
        return backbone

    def train(self, mode: bool = True) -> "TrainingModule":
        super().train(mode)
        if self.freeze_batch_norm:
            # Only the backbone: the statistics of a new head are not learnt yet.
            freeze_batch_norm(self._backbone)
        return self


class Task(Protocol):
    """One training: builds the network, makes samples from rows, and evaluates the result.

    Attributes:
        inference: inference settings for the checkpoint; None if the network does not predict.
    """

    class_names: Sequence[str]
    architecture: dict[str, Any]
    inference: Mapping[str, Any] | None

    @property
    def sampler(self) -> Sampler: ...
    def build(self) -> TrainingModule: ...
    def evaluate(self, network: nn.Module, rows: Iterable[Row]) -> dict[str, np.ndarray]:
        """Evaluates the trained network on a worker's rows of the validation shards.

        Returns:
            name -> (N, ...) array, one entry for each of the N rows, in their order (scores and
            labels are (N, C) each); empty if the task has nothing to evaluate.
        """

    def summarise(self, results: Sequence[dict[str, np.ndarray]]) -> dict[str, float]:
        """Returns metric -> value over the rows of all workers; nan where it is undefined.

        Args:
            results: what `evaluate` returned, one for each worker by rank; each has its own N.
        """


PAIRS = "pairs"
"""Entry of a batch: (N, 2) int64, image and class (from 0) of each of its `pair_labels`, sorted."""


def with_pairs(samples: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Adds `PAIRS` to samples with labels, on the host: on a GPU their number would wait for it."""
    if "labels" not in samples:
        return dict(samples)
    return {**samples, PAIRS: np.argwhere(pair_labels(samples)).astype(np.int64)}


def pair_labels(batch: Mapping[str, Array]) -> Array:
    """Returns the labels whose classes form pairs with their image: the chosen, or all present."""
    return batch.get(CHOSEN_LABELS, batch["labels"])


def pairs_of(batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the image and the class (from 0) of each of the N pairs, (N,) int64 each.

    A batch without `PAIRS`, such as a part of one, waits for the device here.
    """
    if PAIRS in batch:
        image_of, class_of = batch[PAIRS].unbind(1)
    else:
        image_of, class_of = pair_labels(batch).nonzero(as_tuple=True)
    return image_of, class_of
