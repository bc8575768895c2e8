"""One optimisation step, the same on a CPU, a GPU and N of them."""

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

from slams_ray.config import TrainingConfig

POLY_POWER = 0.9


def build_optimizer(network: nn.Module, config: TrainingConfig) -> torch.optim.Optimizer:
    """Optimiser with two groups: the backbone, and the head at `head_multiplier` times its rate."""
    backbone: list[nn.Parameter] = []
    head: list[nn.Parameter] = []
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            (backbone if name.startswith("backbone.") else head).append(parameter)
    rates = (config.learning_rate, config.learning_rate * config.head_multiplier)
    groups = [
        {"params": parameters, "lr": rate, "peak_lr": rate}
        for parameters, rate in zip((backbone, head), rates, strict=True)
    ]
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, weight_decay=config.weight_decay)
    return torch.optim.SGD(groups, momentum=config.momentum, weight_decay=config.weight_decay)


def learning_rate_factor(step: int, num_steps: int, config: TrainingConfig) -> float:
    """Share of the peak learning rate at a step: linear warm-up times poly or cosine decay to 0."""
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
    """Forward, backward, clip, update; returns loss, gradient_norm and the task's scalars.

    At a step that is logged the task may return more scalars than at others.

    Nothing here waits for a GPU, which would idle meanwhile (the activation losses do, once, to
    know how many classes are present): whether the loss is finite is for `check_finite` to say,
    once in a while.

    Args:
        batch: this worker's share of the global batch.
        seed: random seed of the training; with the step it seeds what the loss draws.
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
    # DDP averages gradients over workers, whose shares may differ in size.
    (loss * _weight_of_share(batch, config.batch_size)).backward()
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    norm = nn.utils.clip_grad_norm_(parameters, config.max_gradient_norm)
    optimizer.step()
    return {"loss": loss.detach(), "gradient_norm": norm.detach(), **metrics}


def is_logged(step: int, num_steps: int, config: TrainingConfig) -> bool:
    """Whether a metric point follows a step: every `log_every_steps`, and the last."""
    done = step + 1
    return done % config.log_every_steps == 0 or done == num_steps


def check_finite(losses: Sequence[torch.Tensor], num_steps_done: int) -> None:
    """Looks at the losses of the last steps.

    Args:
        losses: scalars, the last of them of the last step done.

    Raises:
        FloatingPointError: one is not finite; the weights it led to are worth nothing.
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
    """Images of this worker over those of the average worker."""
    num_workers = dist.get_world_size() if dist.is_initialized() else 1
    return len(next(iter(batch.values()))) * num_workers / batch_size
