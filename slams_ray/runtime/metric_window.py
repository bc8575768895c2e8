"""Means of step metrics over the steps since the last log point, across workers and resumes."""

from collections.abc import Mapping

import torch
import torch.distributed as dist

Sums = dict[str, tuple[float, int]]
"""Metric -> its sum over the steps that have it, and their number."""


class MetricWindow:
    """Collects the metrics of steps until they are logged.

    Steps are summed up at each checkpoint, so that a resumed training logs the same means. Not
    every step needs to have every metric.

    Args:
        weight: share of the global batch that is this worker's.
        saved: `sums` of the checkpoint the training continues from.

    Attributes:
        steps: metrics of this worker's steps that are not summed up yet; scalars on its device.
    """

    def __init__(self, weight: float, saved: Mapping[str, tuple[float, int]]) -> None:
        self.steps: list[dict[str, torch.Tensor]] = []
        self._weight = weight
        self._sums: Sums = dict(saved)

    def add(self, metrics: dict[str, torch.Tensor]) -> None:
        self.steps.append(metrics)

    def sums(self) -> Sums:
        """Sums of the metrics over all steps of the window and all workers.

        Every worker calls it at the same step: it exchanges the sums. Each worker counts by its
        share of the global batch.
        """
        if self.steps:
            found = {
                name: [s[name].float() for s in self.steps if name in s] for name in self._names()
            }
            sums = torch.stack([torch.stack(values).sum() for values in found.values()])
            if dist.is_initialized() and dist.get_world_size() > 1:
                sums = sums * self._weight
                dist.all_reduce(sums)
            for (name, values), added in zip(found.items(), sums.tolist(), strict=True):
                total, num_steps = self._sums.get(name, (0.0, 0))
                self._sums[name] = (total + added, num_steps + len(values))
            self.steps.clear()
        return dict(self._sums)

    def _names(self) -> list[str]:
        """In one order on all workers."""
        return sorted({name for step in self.steps for name in step})

    def means(self) -> dict[str, float]:
        """Mean of each metric over the steps that have it; the window starts anew."""
        sums = self.sums()
        self._sums.clear()
        return {name: total / num_steps for name, (total, num_steps) in sums.items()}
