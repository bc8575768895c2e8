"""One optimisation step, the same for any device and any number of workers."""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from slams_ray.config import TrainingConfig
from slams_ray.networks.precision import multiplies_bfloat16
from slams_ray.training.task import PAIRS

POLY_POWER = 0.9
MIXED = torch.bfloat16


def build_optimizer(
    network: nn.Module, config: TrainingConfig, slow_parameters: tuple[str, ...] = ("backbone.",)
) -> torch.optim.Optimizer:
    """Builds an optimiser with the groups backbone, and head with `head_multiplier`.

    With `head_bias_multiplier` the biases of the head are a third group without weight decay.

    Args:
        slow_parameters: prefixes of the parameters of the first group.
    """
    backbone: list[nn.Parameter] = []
    head: list[nn.Parameter] = []
    biases: list[nn.Parameter] = []
    has_own_biases = config.head_bias_multiplier is not None
    for name, parameter in network.named_parameters():
        if not parameter.requires_grad:
            continue
        if name.startswith(slow_parameters):
            backbone.append(parameter)
        elif has_own_biases and name.endswith(".bias"):
            biases.append(parameter)
        else:
            head.append(parameter)
    rate, decay = config.learning_rate, config.weight_decay
    groups = [_group(backbone, rate, decay), _group(head, rate * config.head_multiplier, decay)]
    if config.head_bias_multiplier is not None:
        groups.append(_group(biases, rate * config.head_bias_multiplier, 0.0))
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups)
    return torch.optim.SGD(groups, momentum=config.momentum)


def _group(parameters: list[nn.Parameter], rate: float, decay: float) -> dict[str, Any]:
    return {"params": parameters, "lr": rate, "peak_lr": rate, "weight_decay": decay}


def learning_rate_factor(step: int, num_steps: int, config: TrainingConfig) -> float:
    """Returns the share of the peak learning rate at a step: linear warm-up times decay to 0."""
    done = step / num_steps
    if config.schedule == "poly":
        decay = (1 - done) ** POLY_POWER
    else:
        decay = 0.5 * (1 + math.cos(math.pi * done))
    return decay * min(1.0, (step + 1) / max(config.warmup_steps, 1))


def is_mixed(config: TrainingConfig, device: torch.device) -> bool:
    """Whether forward passes use mixed precision: where bfloat16 is native, as `amp` asks."""
    return config.amp and multiplies_bfloat16(device)


def mixed_precision(config: TrainingConfig, device: torch.device) -> torch.autocast:
    """Context of forward passes, with bfloat16 autocast where `is_mixed`."""
    return torch.autocast(device.type, dtype=MIXED, enabled=is_mixed(config, device))


def train_step(
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    batch: dict[str, torch.Tensor],
    step: int,
    num_steps: int,
    config: TrainingConfig,
    seed: int,
) -> dict[str, torch.Tensor]:
    """Runs forward, backward, clipping and update; returns loss, gradient_norm and task metrics.

    The task may return more metrics at a logged step. The step does not wait for the GPU, which
    would idle meanwhile; the parts of an accumulated batch wait for their numbers of present
    classes. `check_finite` checks the losses of several steps later.

    Args:
        module: a `TrainingModule`, or DDP around one.
        batch: this worker's share of the global batch. It is processed in `accumulation_steps`
            parts, whose gradients add up; workers exchange gradients after the last part.
        seed: random seed of the training; with the step it seeds the random numbers of the loss,
            the same for every part.
    """
    device = next(iter(batch.values())).device
    factor = learning_rate_factor(step, num_steps, config)
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * factor
    optimizer.zero_grad(set_to_none=True)
    parts = _parts(module, batch, config.accumulation_steps)
    found: dict[str, torch.Tensor] = {}
    for number, part in enumerate(parts, start=1):
        with _synchronised(module, number == len(parts)):
            with mixed_precision(config, device):
                draw = np.random.default_rng((seed, step))
                loss, metrics = module(part, draw, is_logged(step, num_steps, config))
            # DDP averages gradients over workers, but their shares of the batch may differ in size.
            (loss * _weight_of_share(part, config.batch_size)).backward()
        share = _num_images(part) / _num_images(batch)
        for name, value in ({"loss": loss.detach()} | metrics).items():
            found[name] = found[name] + value * share if name in found else value * share
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    norm = nn.utils.clip_grad_norm_(parameters, config.max_gradient_norm or math.inf)
    optimizer.step()
    return found | {"gradient_norm": norm.detach()}


def _parts(
    module: nn.Module, batch: dict[str, torch.Tensor], num_parts: int
) -> list[dict[str, torch.Tensor]]:
    """Splits a batch by images into parts, at least one image each; they find their own pairs."""
    if num_parts == 1:
        return [batch]
    training: Any = module.module if isinstance(module, DistributedDataParallel) else module
    prepared = training.prepare(batch)
    num_parts = min(num_parts, _num_images(batch))
    split = {
        name: values.tensor_split(num_parts) for name, values in prepared.items() if name != PAIRS
    }
    return [{name: parts[i] for name, parts in split.items()} for i in range(num_parts)]


def _synchronised(module: nn.Module, is_last: bool) -> AbstractContextManager[Any]:
    """Context in which workers exchange gradients only after the last part of a batch."""
    if is_last or not isinstance(module, DistributedDataParallel):
        return nullcontext()
    return module.no_sync()


def _num_images(batch: dict[str, torch.Tensor]) -> int:
    return len(next(iter(batch.values())))


def is_logged(step: int, num_steps: int, config: TrainingConfig) -> bool:
    """Whether the metrics of a step are logged: every `log_every_steps`-th step, and the last."""
    done = step + 1
    return done % config.log_every_steps == 0 or done == num_steps


def check_finite(losses: Sequence[torch.Tensor], num_steps_done: int) -> None:
    """Checks the losses of the last steps.

    Args:
        losses: scalars; the last one belongs to the last finished step.

    Raises:
        FloatingPointError: a loss is not finite, so the weights are useless.
    """
    values = torch.stack(list(losses)).float()
    wrong = (~torch.isfinite(values)).nonzero()
    if len(wrong):
        index = int(wrong[0])
        step = num_steps_done - len(losses) + index
        raise FloatingPointError(
            f"loss is {values[index].item()} at step {step}: lower training.learning_rate, or "
            "lengthen training.warmup_steps"
        )


def _weight_of_share(batch: dict[str, torch.Tensor], batch_size: int) -> float:
    """Number of images of this worker divided by the mean over the workers."""
    num_workers = dist.get_world_size() if dist.is_initialized() else 1
    return _num_images(batch) * num_workers / batch_size
