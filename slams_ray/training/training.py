"""A task with its data and schedule: everything a trainer needs, without Ray."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from slams_ray.config import TrainingConfig
from slams_ray.networks.batch_norm import synchronise_batch_norm
from slams_ray.networks.checkpoint import dump_network
from slams_ray.networks.cpu_convolutions import use_fast_convolutions
from slams_ray.networks.cuda_graphs import Graphs
from slams_ray.networks.relu6 import use_lean_relu6
from slams_ray.training.data_loading import SampleLoader, ShardColumns, iterate_rows
from slams_ray.training.optimisation import (
    MIXED,
    build_optimizer,
    check_finite,
    is_mixed,
    train_step,
)
from slams_ray.training.sampling import LoadingTask, num_steps, own_streams, plan_loading
from slams_ray.training.task import Task, TrainingModule, with_pairs

Result = dict[str, np.ndarray]
_TRAINED = "network."
"""Prefix of the entries of `TrainingModule.network`, the only part that the optimiser changes."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """One training with its task, settings and data.

    Attributes:
        shard_rows: (name, number of rows) of the training shards.
        sources: columns of the training shards, joined by row.
        val_names: shards that evaluate the trained network; empty skips the evaluation.
        val_sources: columns of the validation shards, joined by row.
    """

    task: Task
    config: TrainingConfig
    shard_rows: Sequence[tuple[str, int]]
    sources: Sequence[ShardColumns]
    val_names: Sequence[str] = ()
    val_sources: Sequence[ShardColumns] = ()
    seed: int = 0

    @property
    def num_steps(self) -> int:
        num_images = sum(rows for _, rows in self.shard_rows)
        return num_steps(self.config.epochs, num_images, self.config.batch_size)

    def check_workers(self, num_workers: int) -> None:
        """Raises ConfigError if this number of workers cannot share a batch."""
        self.batch_share(0, num_workers)

    def batch_share(self, rank: int, num_workers: int) -> int:
        """Number of images of a global batch that a worker processes."""
        return len(own_streams(self.config.batch_size, rank, num_workers))

    def is_mixed(self, device: str) -> bool:
        """Whether this machine trains in mixed precision on a type of device: "cpu" or "cuda"."""
        return is_mixed(self.config, torch.device(device))

    def without_amp(self) -> "Training":
        """Returns the training in float32."""
        return replace(self, config=replace(self.config, amp=False))

    def build(self, device: str = "cpu", cuda_graphs: bool = False) -> TrainingModule:
        """Returns the module, on the CPU, for a type of device: "cpu" or "cuda".

        Args:
            cuda_graphs: whether a GPU computes backbones by graphs. Parts of an accumulated batch
                have none, because the next part would overwrite the gradients of the last.
        """
        module = self.task.build()
        synchronise_batch_norm(module, device)
        if self.is_mixed(device):
            module.convert_frozen(MIXED)
        if device == "cpu":
            use_fast_convolutions(module)
        use_lean_relu6(module)
        if cuda_graphs and device == "cuda" and self.config.accumulation_steps == 1:
            module.graphs = Graphs(module, module.network)
        # On a CPU a step of MobileNetV2 takes 0.6 to 0.8 of its time with channels first.
        return module.to(memory_format=torch.channels_last)

    def optimizer(self, module: nn.Module) -> torch.optim.Optimizer:
        """Returns the optimiser of the trained network; frozen networks beside it have none.

        Args:
            module: a `TrainingModule`, or DDP around one.
        """
        inner = training_module(module)
        return build_optimizer(inner.network, self.config, inner.slow_parameters)

    def complete(self, samples: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Adds `pairs` to samples that have labels, before they are copied to the device.

        Args:
            samples: name -> (b, ...) array, the b images of a worker's share of a global batch, as
                `loader` makes them; labels are (b, C) uint8 multi-hot.

        Returns:
            the samples, and pairs (N, 2) int64: image and class (from 0) of the N pairs.
        """
        return with_pairs(samples)

    def step(
        self,
        module: nn.Module,
        optimizer: torch.optim.Optimizer,
        batch: dict[str, torch.Tensor],
        step: int,
        num_steps: int,
    ) -> dict[str, torch.Tensor]:
        """Runs one optimisation step on a worker's share of a global batch.

        Args:
            module: a `TrainingModule`, or DDP around one.
            batch: name -> (b, ...) tensor on the module's device, as `complete` returns them.
            step: number of the step, from 0.
            num_steps: number of steps of the whole training.

        Returns:
            name -> scalar on that device, without a gradient: loss and the metrics of the task on
            this worker's share, and gradient_norm of the global batch.
        """
        # Dropout (the DeepLabV3 head) must not depend on how often the training was restarted.
        seed_generators(self.seed * 1_000_003 + step)
        inner = training_module(module)
        inner.step, inner.progress = step, step / num_steps
        return train_step(module, optimizer, batch, step, num_steps, self.config, self.seed)

    def check(self, metrics: Sequence[Mapping[str, torch.Tensor]], num_steps_done: int) -> None:
        """Checks the losses of the last steps.

        Args:
            metrics: what `step` returned, one for each step since the last check; the last one
                belongs to step num_steps_done - 1.

        Raises:
            FloatingPointError: a loss is not finite.
        """
        check_finite([m["loss"] for m in metrics], num_steps_done)

    def loading_tasks(self, rank: int, num_workers: int, first_step: int) -> Iterator[LoadingTask]:
        """Yields what worker `rank` loads from `first_step` to the last step, in order.

        Together the tasks hold `batch_share` rows for each step. The plan depends on the random
        seed and the shards only, so a restart or another number of workers uses the same images.

        Raises:
            ConfigError: this number of workers cannot share a batch.
        """
        return plan_loading(
            self.shard_rows,
            batch_size=self.config.batch_size,
            rank=rank,
            num_workers=num_workers,
            first_step=first_step,
            last_step=self.num_steps,
            seed=self.seed,
        )

    @property
    def loader(self) -> SampleLoader:
        """Loader that the data-loading tasks run; it holds no network."""
        return SampleLoader(sources=tuple(self.sources), sampler=self.task.sampler, seed=self.seed)

    def release(self, module: nn.Module) -> str | None:
        """Frees memory that only steps need. Returns why a GPU had no graphs; None if it had."""
        module.zero_grad(set_to_none=True)
        inner = training_module(module)
        graphs, inner.graphs = inner.graphs, None
        return None if graphs is None else graphs.problem

    def evaluate(self, module: nn.Module, rank: int, num_workers: int) -> Result:
        """Evaluates the network on every num_workers-th validation shard."""
        names = self.val_names[rank::num_workers]
        return self.task.evaluate(network_of(module), iterate_rows(names, self.val_sources))

    def summarise(self, results: Sequence[Result]) -> dict[str, float]:
        return self.task.summarise(results) if self.val_names else {}

    def state(self, module: nn.Module) -> dict[str, torch.Tensor]:
        """What training changes. Frozen networks beside the trained one come again from `build`."""
        state = training_module(module).state_dict()
        return {name: value for name, value in state.items() if name.startswith(_TRAINED)}

    def load_state(self, module: nn.Module, state: Mapping[str, torch.Tensor]) -> None:
        """Loads `state`. Entries of frozen networks, which older checkpoints have, are ignored."""
        names = (name for name in state if name.startswith(_TRAINED))
        network_of(module).load_state_dict({n.removeprefix(_TRAINED): state[n] for n in names})

    def dump(self, module: nn.Module) -> bytes:
        task, network = self.task, training_module(module).exported
        return dump_network(network, task.architecture, task.class_names, task.inference)


def seed_generators(seed: int) -> None:
    """Seeds torch's generators without torch.manual_seed.

    Without a GPU, torch.manual_seed records each call with its stack: 4 ms per step of the demo,
    and memory that grows with every step.
    """
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.manual_seed_all(seed)


def network_of(module: nn.Module) -> nn.Module:
    """Returns the network inside a training module."""
    return training_module(module).network


def training_module(module: nn.Module) -> TrainingModule:
    """Returns the training module, which DistributedDataParallel may wrap."""
    inner = module.module if isinstance(module, DistributedDataParallel) else module
    assert isinstance(inner, TrainingModule)
    return inner
