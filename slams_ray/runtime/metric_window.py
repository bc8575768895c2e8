"""Means of metrics over the steps since the last log point, for all workers, across restarts."""

from collections.abc import Mapping

import torch
import torch.distributed as dist

Sums = dict[str, tuple[float, int]]
"""Metric -> its sum over the steps that have it, and the number of these steps."""


class MetricWindow:
    """Collects the metrics of steps until they are logged.

    Sums are stored in each checkpoint, so that a resumed training logs the same means. A step need
    not have every metric.

    Args:
        weight: this worker's share of the global batch.
        saved: `sums` from the checkpoint that the training continues from.

    Attributes:
        steps: metrics of this worker's steps that are not summed yet, as scalars on its device.
    """

    def __init__(self, weight: float, saved: Mapping[str, tuple[float, int]]) -> None:
        self.steps: list[dict[str, torch.Tensor]] = []
        self._weight = weight
        self._sums: Sums = dict(saved)

    def add(self, metrics: dict[str, torch.Tensor]) -> None:
        self.steps.append(metrics)

    def sums(self) -> Sums:
        """Sums the metrics over all steps of the window and all workers.

        Every worker must call it at the same step, because workers exchange their sums. Workers are
        weighted by their share of the global batch.
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
        """Sorted names, so that all workers have the same order."""
        return sorted({name for step in self.steps for name in step})

    def means(self) -> dict[str, float]:
        """Returns the mean of each metric over the steps that have it, and empties the window."""
        sums = self.sums()
        self._sums.clear()
        return {name: total / num_steps for name, (total, num_steps) in sums.items()}
