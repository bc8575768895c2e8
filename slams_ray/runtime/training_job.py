"""Job of one training: what it trains and how, sent from the driver to every worker."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn


class TrainingSteps(Protocol):
    """Interface that the trainer needs; `slams_ray.training.training.Training` implements it."""

    def is_mixed(self, device: str) -> bool:
        """Whether this machine trains in mixed precision on a type of device: "cpu" or "cuda"."""

    def without_amp(self) -> "TrainingSteps":
        """Returns the same training in float32."""

    def build(self, device: str = "cpu", cuda_graphs: bool = False) -> nn.Module:
        """Returns the module, on the CPU, for a type of device: "cpu" or "cuda"."""

    def optimizer(self, module: nn.Module) -> torch.optim.Optimizer: ...
    def complete(self, samples: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Adds to a worker's share of a batch what is computed before the copy to the device."""

    def step(
        self,
        module: nn.Module,
        optimizer: torch.optim.Optimizer,
        batch: dict[str, torch.Tensor],
        step: int,
        num_steps: int,
    ) -> dict[str, torch.Tensor]: ...
    def check(self, metrics: Sequence[Mapping[str, torch.Tensor]], num_steps_done: int) -> None:
        """Raises if the metrics of the last steps show that the training has failed."""

    def batch_share(self, rank: int, num_workers: int) -> int: ...
    def loading_tasks(self, rank: int, num_workers: int, first_step: int) -> Iterable[Any]: ...
    @property
    def loader(self) -> Callable[[Any], dict[str, np.ndarray]]:
        """Makes the samples of a loading task. It must be small: every task gets a copy."""

    def release(self, module: nn.Module) -> str | None:
        """Frees memory that only steps need. Returns why a GPU had no graphs; None if it had."""

    def evaluate(self, module: nn.Module, rank: int, num_workers: int) -> Any: ...
    def summarise(self, results: Sequence[Any]) -> dict[str, float]: ...
    def state(self, module: nn.Module) -> dict[str, torch.Tensor]:
        """Returns what a checkpoint needs to continue: all that `build` does not restore."""

    def load_state(self, module: nn.Module, state: Mapping[str, torch.Tensor]) -> None: ...
    def dump(self, module: nn.Module) -> bytes: ...


@dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """One training.

    Attributes:
        label: name in progress lines and prefix of metrics.
        training: task, data and schedule, which need no Ray.
        output_dir: directory of model.pt; its subdirectory `training` has Ray Train's checkpoints.
        min_workers: fewest workers with which a training continues; None waits for all.
        num_threads: threads of a worker without a GPU; None divides the cores of a node.
        data_loading_tasks: data-loading tasks per worker; 0 loads in the worker itself, None
            chooses by CPUs and GPUs of a node.
        deterministic: whether GPUs use deterministic kernels.
        cuda_graphs: whether a single worker with a GPU computes backbones by CUDA graphs. With
            deterministic kernels it does not: after a restart other passes would have a graph.
        tracking_uri: address of MLflow.
        run_id: id of the MLflow run for the metrics; None tracks nothing.
        system_metrics: whether rank 0 logs the load of its machine to MLflow.
        credentials: environment variables for MLflow, for rank 0 and these metrics alone.
    """

    label: str
    training: TrainingSteps
    output_dir: str
    num_steps: int
    batch_size: int
    checkpoint_every_steps: int
    log_every_steps: int
    seed: int
    num_workers: int
    min_workers: int | None
    num_threads: int | None
    data_loading_tasks: int | None
    device: str
    deterministic: bool
    cuda_graphs: bool
    max_failures: int
    tracking_uri: str
    run_id: str | None
    credentials: Mapping[str, str] = field(default_factory=dict, repr=False)
    system_metrics: bool = False
