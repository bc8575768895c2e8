"""Means of step metrics over the steps since the last log point, across workers and resumes."""

from collections.abc import Mapping

import torch
import torch.distributed as dist


class MetricWindow:
    """Collects the metrics of steps until they are logged.

    Steps are summed up at each checkpoint, so that a resumed training logs the same means.

    Args:
        weight: share of the global batch that is this worker's.
        saved: `sums` of the checkpoint the training continues from.

    Attributes:
        steps: metrics of this worker's steps that are not summed up yet; scalars on its device.
    """

    def __init__(self, weight: float, saved: Mapping[str, float]) -> None:
        self.steps: list[dict[str, torch.Tensor]] = []
        self._weight = weight
        self._sums = dict(saved)

    def add(self, metrics: dict[str, torch.Tensor]) -> None:
        self.steps.append(metrics)

    def sums(self) -> dict[str, float]:
        """Sums of the metrics over all steps of the window, and their number as `num_steps`.

        Every worker calls it at the same step: it exchanges the sums. Each worker counts by its
        share of the global batch.
        """
        if self.steps:
            names = list(self.steps[0])
            sums = torch.stack(
                [torch.stack([s[n].float() for s in self.steps]).sum() for n in names]
            )
            if dist.is_initialized() and dist.get_world_size() > 1:
                sums = sums * self._weight
                dist.all_reduce(sums)
            self._grow(dict(zip(names, sums.tolist(), strict=True)))
        return dict(self._sums)

    def _grow(self, sums: Mapping[str, float]) -> None:
        for name, value in [*sums.items(), ("num_steps", float(len(self.steps)))]:
            self._sums[name] = self._sums.get(name, 0.0) + value
        self.steps.clear()

    def means(self) -> dict[str, float]:
        """Means over the steps of the window, which starts anew."""
        sums = self.sums()
        num_steps = sums.pop("num_steps")
        self._sums.clear()
        return {name: value / num_steps for name, value in sums.items()}
