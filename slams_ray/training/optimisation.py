"""One optimisation step, the same for any device and any number of workers."""

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

from slams_ray.config import TrainingConfig

POLY_POWER = 0.9


def build_optimizer(
    network: nn.Module, config: TrainingConfig, slow_parameters: tuple[str, ...] = ("backbone.",)
) -> torch.optim.Optimizer:
    """Builds an optimiser with two groups: backbone, and head with `head_multiplier`.

    Args:
        slow_parameters: prefixes of the parameters of the first group.
    """
    backbone: list[nn.Parameter] = []
    head: list[nn.Parameter] = []
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            (backbone if name.startswith(slow_parameters) else head).append(parameter)
    rates = (config.learning_rate, config.learning_rate * config.head_multiplier)
    groups = [
        {"params": parameters, "lr": rate, "peak_lr": rate}
        for parameters, rate in zip((backbone, head), rates, strict=True)
    ]
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, weight_decay=config.weight_decay)
    return torch.optim.SGD(groups, momentum=config.momentum, weight_decay=config.weight_decay)


def learning_rate_factor(step: int, num_steps: int, config: TrainingConfig) -> float:
    """Returns the share of the peak learning rate at a step: linear warm-up times decay to 0."""
    done = step / num_steps
    if config.schedule == "poly":
        decay = (1 - done) ** POLY_POWER
    else:
        decay = 0.5 * (1 + math.cos(math.pi * done))
    return decay * min(1.0, (step + 1) / max(config.warmup_steps, 1))


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
    would idle meanwhile; only the activation losses wait once, for the number of present classes.
    `check_finite` checks the losses of several steps later.

    Args:
        batch: this worker's share of the global batch.
        seed: random seed of the training; with the step it seeds the random numbers of the loss.
    """
    device = next(iter(batch.values())).device
    factor = learning_rate_factor(step, num_steps, config)
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * factor
    use_amp = config.amp and device.type == "cuda"
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=use_amp):
        draw = np.random.default_rng((seed, step))
        loss, metrics = module(batch, draw, is_logged(step, num_steps, config))
    optimizer.zero_grad(set_to_none=True)
    # DDP averages gradients over workers, but their shares of the batch may differ in size.
    (loss * _weight_of_share(batch, config.batch_size)).backward()
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    norm = nn.utils.clip_grad_norm_(parameters, config.max_gradient_norm)
    optimizer.step()
    return {"loss": loss.detach(), "gradient_norm": norm.detach(), **metrics}


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
    return len(next(iter(batch.values()))) * num_workers / batch_size
