"""Where and how a pipeline runs; none of it is part of what a result is."""

from dataclasses import dataclass
from typing import Literal

from slams_ray.config.checks import check


@dataclass(frozen=True, kw_only=True)
class ComputeConfig:
    """How many processes and devices; changes time, results by rounding, no fingerprint."""

    train_workers: int = 1
    """Ray Train workers, one GPU each where GPUs are used. Any number takes the same steps."""
    min_train_workers: int | None = None
    """Go on from the last checkpoint with this many workers or more where nodes are lost, and with
    more again when they are back; None waits for all."""
    train_threads: int | None = None
    """Threads of a training worker without a GPU; None shares the cores of a node among its
    workers. Threads divide sums of floats, and training amplifies how they were rounded: the
    same figures on machines with more or fewer cores need the same number. The demo takes 1."""
    data_loading_tasks: int | None = None
    """Processes that decode and augment for each training worker; None is 2 on CPUs, and on GPUs
    the CPUs of a node divided by its GPUs less one, 2 to 16."""
    device: Literal["auto", "cpu", "gpu"] = "auto"
    """auto takes GPUs where the cluster has them."""
    gpu_actors: int | None = None
    """GPUs for inference, and for refinement with the torch backend; None takes all."""
    actors_per_gpu: int = 1
    """Inference processes that share a GPU: with two, one reads and writes shards while the other
    computes, and networks are held twice."""
    max_failures: int = 3
    """Times a training restarts from its last checkpoint after a lost worker."""

    def __post_init__(self) -> None:
        for name in (
            "train_workers",
            "min_train_workers",
            "train_threads",
            "data_loading_tasks",
            "gpu_actors",
            "actors_per_gpu",
        ):
            value = getattr(self, name)
            check(value is None or value >= 1, f"compute.{name}", value, ">= 1")
        check(
            (self.min_train_workers or 1) <= self.train_workers,
            "compute.min_train_workers",
            self.min_train_workers,
            f"at most compute.train_workers ({self.train_workers})",
        )
        check(self.max_failures >= 0, "compute.max_failures", self.max_failures, ">= 0")


@dataclass(frozen=True, kw_only=True)
class TrackingConfig:
    """MLflow; changes no result and so no fingerprint."""

    experiment: str = "slams_ray"
    """Experiment name. The server is MLFLOW_TRACKING_URI; without it, SQLite in the workspace."""
    num_examples: int = 6
    """Images in the montage."""

    def __post_init__(self) -> None:
        check(self.num_examples >= 1, "tracking.num_examples", self.num_examples, ">= 1")
