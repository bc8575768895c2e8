"""Settings of where and how a pipeline runs. They are not part of any fingerprint."""

from dataclasses import dataclass
from typing import Literal

from slams_ray.config.checks import check


@dataclass(frozen=True, kw_only=True)
class ComputeConfig:
    """Numbers of processes and devices. They change the run time, and results only by rounding."""

    train_workers: int = 1
    """Ray Train workers, with one GPU each where GPUs are used. Any number of workers takes the
    same optimisation steps up to rounding."""
    min_train_workers: int | None = None
    """Fewest workers with which a training continues after a node is lost; it takes more again when
    nodes return. None waits for all workers."""
    train_threads: int | None = None
    """Threads of a training worker without a GPU; None divides the cores of a node among its
    workers. Set it to get the same figures on machines with different numbers of cores, because
    the number of threads changes how sums are rounded."""
    trainings_at_once: int | None = None
    """Trainings that run at the same time where none needs another, such as those of the classifier
    and the encoder. None is as many as have GPUs; on CPUs it is one a node, or more where
    train_threads leaves cores."""
    data_loading_tasks: int | None = None
    """Processes that decode and augment images for each training worker. None is 2 on CPUs; on GPUs
    it is the CPUs per GPU of a node minus one, limited to 2..16. 0 loads in the worker itself: it
    starts sooner and suits small images. A thread then loads in advance on GPUs, and on CPUs where
    train_threads is set."""
    device: Literal["auto", "cpu", "gpu"] = "auto"
    """Device for training and inference; auto uses GPUs if the cluster has any."""
    gpu_actors: int | None = None
    """GPUs for inference, and for refinement with the torch backend; None uses all."""
    actors_per_gpu: int = 1
    """Inference processes that share a GPU. With two, one reads and writes shards while the other
    computes, at the cost of a second copy of the networks in GPU memory."""
    cpu_networks: Literal["torch", "onnxruntime"] = "torch"
    """What computes the networks of CAM and SLAMs in infer_activation on CPUs in float32.
    onnxruntime is faster there, and needs the extra `export`; other devices, networks and
    number formats always use torch."""
    deterministic: bool = False
    """Uses deterministic kernels in trainings on GPUs, which are slower. Without it the figures of
    a command differ slightly between runs on a GPU; on CPUs they never do."""
    cuda_graphs: bool = True
    """Computes backbones with frozen BatchNorm by CUDA graphs in trainings on a GPU, so that it
    waits less for the host. Only with one worker, and without accumulation or deterministic."""
    max_failures: int = 3
    """Number of times a training restarts from its last checkpoint after it loses a worker."""

    def __post_init__(self) -> None:
        for name in (
            "train_workers",
            "min_train_workers",
            "train_threads",
            "trainings_at_once",
            "gpu_actors",
            "actors_per_gpu",
        ):
            value = getattr(self, name)
            check(value is None or value >= 1, f"compute.{name}", value, ">= 1")
        tasks = self.data_loading_tasks
        check(tasks is None or tasks >= 0, "compute.data_loading_tasks", tasks, ">= 0")
        check(
            (self.min_train_workers or 1) <= self.train_workers,
            "compute.min_train_workers",
            self.min_train_workers,
            f"at most compute.train_workers ({self.train_workers})",
        )
        check(self.max_failures >= 0, "compute.max_failures", self.max_failures, ">= 0")


@dataclass(frozen=True, kw_only=True)
class TrackingConfig:
    """Settings of MLflow tracking. They change no result and no fingerprint."""

    experiment: str = "slams_ray"
    """Name of the MLflow experiment. MLFLOW_TRACKING_URI names the server; without it, runs are
    stored in an SQLite file in the workspace."""
    num_examples: int = 6
    """Number of images in the montage."""
    tags: tuple[str, ...] = ()
    """Tags of the parent run in MLflow, as name=value."""
    system_metrics: bool = False
    """Logs CPU, memory, network and GPU of the first training worker's machine every ten seconds,
    to the run of each training."""
    registered_name: str | None = None
    """Registers the segmentation network in MLflow under this name. The alias `best` moves to it if
    its mIoU on the same scored split is higher. None registers nothing."""

    def __post_init__(self) -> None:
        check(self.num_examples >= 1, "tracking.num_examples", self.num_examples, ">= 1")
        for tag in self.tags:
            key = tag.partition("=")[0].strip()
            is_tag = "=" in tag and bool(key) and not key.startswith(("mlflow.", "slams."))
            expected = "name=value, with a name that does not start with mlflow. or slams."
            check(is_tag, "tracking.tags", tag, expected)
        name = self.registered_name
        # MLflow refuses these characters, but only after the training.
        is_usable = name is None or (bool(name.strip()) and not set("/:") & set(name))
        check(is_usable, "tracking.registered_name", name, "a name without / and :")

    @property
    def named_tags(self) -> dict[str, str]:
        """Name -> value of `tags`."""
        return {key.strip(): value for key, _, value in (tag.partition("=") for tag in self.tags)}
