"""Faults. Each is set up before a stage starts, or injected while it runs."""

import resource
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from slams_ray.faults import crashing_image, refused_reads
from slams_ray.faults.driver import Driver
from slams_ray.faults.nodes import Nodes, kill
from slams_ray.faults.tracking_server import TrackingServer

REFUSED_SECONDS = 20.0
UNTRACKED_SECONDS = 30.0
_ORIGINAL = "original image"
WORKERS = ("ray::MapBatches", "ray::MapWorker", "ray::RayTrainWorker")
"""Titles of the processes that do the work of a stage."""
_READING_FILES = ("prepare", "predict")
"""Stages that read image files; the others read shards."""


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Place of a fault: cluster, workspace, stage, tracking server and data set."""

    nodes: Nodes
    workspace: Path
    stage_dir: Path
    server: TrackingServer
    source: Path


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One kind of fault.

    Attributes:
        inject: causes the fault while the stage runs.
        set_up: prepares the fault before the driver starts. Returns variables for the driver's
            environment.
        restore: repairs the input before the same command runs again.
        ends_run: whether the fault ends the driver, so that the same command has to continue.
        tracked: whether the fault needs an MLflow server.
        message: text that the log must contain.
        only: stages that the fault applies to; none means all.
    """

    inject: Callable[[Scene, Driver], None] | None = None
    set_up: Callable[[Scene], Mapping[str, str]] | None = None
    restore: Callable[[Scene], None] | None = None
    ends_run: bool = False
    tracked: bool = False
    message: Callable[[Scene], str] = field(default=lambda _: "")
    only: tuple[str, ...] = ()


def _kill_worker(scene: Scene, driver: Driver) -> None:
    driver.wait_until(lambda: bool(scene.nodes.workers(WORKERS)), 30)
    for process in scene.nodes.workers(WORKERS)[:1]:
        kill(process)


def _kill_node(scene: Scene, driver: Driver) -> None:
    scene.nodes.kill_last()
    scene.nodes.add()


def _kill_driver(scene: Scene, driver: Driver) -> None:
    driver.signal(signal.SIGKILL)


def _stop_driver(scene: Scene, driver: Driver) -> None:
    driver.signal(signal.SIGTERM)


def _refuse_writes(scene: Scene, driver: Driver) -> None:
    """Limits the files of every worker to 0 bytes for a while, as on a full disk.

    The driver is not limited, because Ray Data fails there when it cannot write its own log.
    """
    limited: set[psutil.Process] = set()
    infinite = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    until = time.monotonic() + REFUSED_SECONDS
    while time.monotonic() < until:
        for process in scene.nodes.workers(("ray::",)):
            if process not in limited:
                # Only the soft limit changes, because it can be raised again.
                _limit(process, (0, resource.RLIM_INFINITY))
                limited.add(process)
        time.sleep(0.1)
    for process in limited:
        _limit(process, infinite)


def _limit(process: psutil.Process, limits: tuple[int, int]) -> None:
    try:
        process.rlimit(psutil.RLIMIT_FSIZE, limits)
    except psutil.NoSuchProcess:
        return


def _reads_flag(scene: Scene) -> Path:
    return scene.workspace / "reads-refused"


def _refuse_reads(scene: Scene, driver: Driver) -> None:
    """Makes reads of shards fail in all workers for a while."""
    _reads_flag(scene).touch()
    time.sleep(REFUSED_SECONDS)
    _reads_flag(scene).unlink()


def _interrupt_tracking(scene: Scene, driver: Driver) -> None:
    scene.server.kill()
    time.sleep(UNTRACKED_SECONDS)
    scene.server.start()


def _truncate_output(scene: Scene) -> Mapping[str, str]:
    """Truncates one output to half and removes the record, as a crash can leave them."""
    shards = sorted(scene.stage_dir.rglob("*.parquet")) or sorted(scene.stage_dir.rglob("*.pt"))
    shards[0].write_bytes(shards[0].read_bytes()[: shards[0].stat().st_size // 2])
    for name in ("record.json", "training.json"):
        for path in scene.stage_dir.rglob(name):
            path.unlink()
    return {}


def _image(scene: Scene) -> Path:
    split = "val" if scene.stage_dir.name == "evaluate" else "train"
    images = sorted((scene.source / split).iterdir())
    return images[len(images) // 2]


def _name_of_image(scene: Scene) -> str:
    """Returns the name of the image in the stage's messages: file name or id."""
    image = _image(scene)
    return image.name if scene.stage_dir.name in _READING_FILES else image.stem


def _corrupt_image(scene: Scene) -> Mapping[str, str]:
    image = _image(scene)
    # The copy is stored elsewhere, because a further file would change the data set.
    (scene.workspace / _ORIGINAL).write_bytes(image.read_bytes())
    image.write_bytes(image.read_bytes()[: image.stat().st_size // 2])
    return {}


def _repair_image(scene: Scene) -> None:
    (scene.workspace / _ORIGINAL).replace(_image(scene))


FAULTS: Mapping[str, Fault] = {
    "worker_killed": Fault(inject=_kill_worker),
    "node_killed": Fault(inject=_kill_node),
    "driver_killed": Fault(inject=_kill_driver, ends_run=True),
    "stopped": Fault(inject=_stop_driver, ends_run=True),
    "storage_refuses": Fault(inject=_refuse_writes),
    "reads_refused": Fault(
        set_up=lambda scene: refused_reads.environment(_reads_flag(scene)),
        inject=_refuse_reads,
    ),
    "mlflow_gone": Fault(inject=_interrupt_tracking, tracked=True),
    "output_truncated": Fault(set_up=_truncate_output),
    "image_corrupted": Fault(
        set_up=_corrupt_image,
        restore=_repair_image,
        ends_run=True,
        message=lambda scene: _image(scene).name,
        only=_READING_FILES,
    ),
    "image_crashing": Fault(
        set_up=lambda scene: crashing_image.environment(_image(scene)),
        ends_run=True,
        message=lambda scene: f"{_name_of_image(scene)} crashed the processes",
        only=(*_READING_FILES, "infer_activation", "propagate", "refine", "evaluate"),
    ),
}
