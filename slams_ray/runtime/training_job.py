"""What one training needs: a task and its settings, handed from the driver to every worker."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from slams_ray import storage


class TrainedTask(Protocol):
    """What the trainer needs of a task; `slams_ray.training.training.Training` is one."""

    def build(self) -> nn.Module: ...
    def optimizer(self, module: nn.Module) -> torch.optim.Optimizer: ...
    def step(
        self,
        module: nn.Module,
        optimizer: torch.optim.Optimizer,
        batch: dict[str, torch.Tensor],
        step: int,
        num_steps: int,
    ) -> dict[str, torch.Tensor]: ...
    def check(self, metrics: Sequence[Mapping[str, torch.Tensor]], num_steps_done: int) -> None:
        """Raises where what the last steps returned shows that the training has failed."""

    def batch_share(self, rank: int, num_workers: int) -> int: ...
    def loading_tasks(self, rank: int, num_workers: int, first_step: int) -> Iterable[Any]: ...
    @property
    def loader(self) -> Callable[[Any], dict[str, np.ndarray]]:
        """Makes the samples of a loading task. It is small, because every task gets a copy."""

    def evaluate(self, module: nn.Module, rank: int, num_workers: int) -> Any: ...
    def summarise(self, results: Sequence[Any]) -> dict[str, float]: ...
    def dump(self, module: nn.Module) -> bytes: ...


@dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """One training.

    Attributes:
        label: name for progress lines and metric prefixes.
        task: what is trained.
        output_dir: gets model.pt; Ray Train's checkpoints stand in its subdirectory `training`.
        tracking_uri, run_id: MLflow run the metrics go to.
        min_workers: how few may go on where nodes are lost; None ends with a node.
        num_threads: of a worker without a GPU; None shares the cores of a node.
        data_loading_tasks: processes that feed each worker; None leaves it to its node.
        credentials: environment variables for MLflow, set in rank 0 only.
    """

    label: str
    task: TrainedTask
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
    max_failures: int
    tracking_uri: str
    run_id: str | None
    credentials: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class PickledJob:
    """A pickled job: Ray Train's controller, which only passes it on, need not import the task, and
    has nothing to show of it.
    """

    pickled: bytes = field(repr=False)


def progress_path(output_dir: str) -> str:
    """Where rank 0 leaves its progress for the driver."""
    return storage.join(output_dir, "progress.json")
