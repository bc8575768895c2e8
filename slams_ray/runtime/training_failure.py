"""Classification of training failures: lost workers are retried, other errors are not."""

import os
import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from ray import train
from ray.exceptions import (
    ActorUnschedulableError,
    LocalRayletDiedError,
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
    RayActorError,
    RayTaskError,
    RpcError,
    TaskUnschedulableError,
    WorkerCrashedError,
)
from ray.train import TrainingFailedError

from slams_ray.errors import SlamsError, TrainingError
from slams_ray.runtime import cluster

_WATCH = "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER"
_LOST = (
    RayActorError,
    WorkerCrashedError,
    NodeDiedError,
    LocalRayletDiedError,
    ObjectLostError,
    # Ray's memory monitor killed the process. MemoryError and CUDA out of memory are other types.
    OutOfMemoryError,
    RpcError,
    TaskUnschedulableError,
    ActorUnschedulableError,
)
_LOST_PEER = re.compile(r"\bgloo/|\bNCCL\b|\bDist\w*Error\b|Connection (reset|closed) by peer")
"""Messages of torch in the remaining workers when one worker dies."""
_OUT_OF_MEMORY = re.compile(r"out of memory|MemoryError|DefaultCPUAllocator")
_OWN_ERROR = re.compile(r"slams_ray\.errors\.\w+: (.+)")
_LOW_MEMORY = (
    "a process was killed because its node ran low on memory: lower compute.data_loading_tasks, "
    "the batch size or crop_px, or use nodes with more memory"
)
_NO_MEMORY = (
    "lower the batch size or crop_px, switch compute.cuda_graphs off on a GPU, or use a device "
    "with more memory"
)


class WorkerError(Exception):
    """An exception of a training worker as text, so that the driver gets all of it.

    Ray Train sends exceptions without traceback, and shortens the traceback in its message.

    Attributes:
        reason: one line for the user.
        traceback: complete traceback of the worker.
        is_loss: whether the worker failed because another process or node was lost.
        is_announced: whether a node of the training had announced its end.
    """

    def __init__(self, reason: str, traceback: str, is_loss: bool, is_announced: bool) -> None:
        super().__init__(reason, traceback, is_loss, is_announced)
        self.reason, self.traceback = reason, traceback
        self.is_loss, self.is_announced = is_loss, is_announced

    def __str__(self) -> str:
        return self.reason

    @classmethod
    def of(cls, error: Exception, is_announced: bool = False) -> "WorkerError":
        """Converts the exception that a worker is handling."""
        text = "".join(traceback.format_exception(error))
        return cls(_reason(error, text), text, is_loss(error), is_announced)


class DrainWatch:
    """Asks Ray Train whether a node of the training has announced its end.

    Attributes:
        has_seen: whether an announcement has been seen.
    """

    def __init__(self) -> None:
        self.has_seen = False

    def is_news(self) -> bool:
        """Whether an announcement is seen for the first time; all workers ask at the same step."""
        if self.has_seen or train.get_preemption_info() is None:
            return False
        self.has_seen = True
        return True


@contextmanager
def ends_watched() -> Iterator[None]:
    """Lets Ray Train watch for nodes that announce their end, except on a cluster of one machine.

    Nothing announces the end of a machine to its own cluster, and the watch is a process more for
    each training.
    """
    if not cluster.is_alone() or _WATCH in os.environ:
        yield
        return
    os.environ[_WATCH] = "0"
    try:
        yield
    finally:
        # Another training of this process may have removed it.
        os.environ.pop(_WATCH, None)


def is_loss(error: BaseException) -> bool:
    """Whether a worker's exception was caused by a lost process or node, so that a retry helps."""
    causes = list(_causes(error))
    if any(isinstance(cause, _LOST) for cause in causes):
        return True
    return any(_tells_of_lost_peer(cause) for cause in causes)


def _tells_of_lost_peer(error: BaseException) -> bool:
    # Only torch's errors: others with this text would occur again in a retry.
    if not isinstance(error, RuntimeError) or isinstance(error, SlamsError):
        return False
    text = f"{type(error).__name__}: {error}"
    return bool(_LOST_PEER.search(text)) and not _OUT_OF_MEMORY.search(text)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        if isinstance(error, RayTaskError) and isinstance(error.cause, BaseException):
            yield error.cause
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _reason(error: Exception, text: str) -> str:
    """Returns the message of a SlamsError among the causes, else type and message."""
    if isinstance(error, SlamsError):
        return str(error)
    # The error of a data-loading task arrives as text, not as a cause.
    own = _OWN_ERROR.search(text)
    if own:
        return own.group(1).strip()
    if isinstance(error, FloatingPointError):
        return str(error)
    last = (str(error).strip() or repr(error)).splitlines()[-1]
    if _OUT_OF_MEMORY.search(f"{type(error).__name__}: {error}"):
        return f"{type(error).__name__}: {last}: {_NO_MEMORY}"
    return f"{type(error).__name__}: {last}"


def may_be_retried(error: TrainingFailedError) -> bool:
    """Whether a training failed because a worker or node was lost.

    If one worker is lost, errors of the other workers may be consequences. A genuine error occurs
    again in the next attempt.
    """
    failures = _worker_failures(error)
    kinds = [f.is_loss if isinstance(f, WorkerError) else None for f in failures]
    return bool(kinds) and (None in kinds or all(kinds))


def was_announced(error: TrainingFailedError) -> bool:
    """Whether the lost node had announced its end."""
    return any(isinstance(f, WorkerError) and f.is_announced for f in _worker_failures(error))


def training_error(label: str, error: Exception) -> TrainingError:
    """Builds the error for the user, with the tracebacks of the workers as notes."""
    failures = _worker_failures(error)
    result = TrainingError(f"training {label} failed: {_cause(error, failures)}")
    for failure in failures:
        text = failure.traceback if isinstance(failure, WorkerError) else str(failure)
        result.add_note(f"\nIn a training worker:\n{text}")
    return result


def _cause(error: Exception, failures: list[Exception]) -> str:
    """Returns the reason of a genuine error, else of the lost worker, else of its peers."""
    ours = [f for f in failures if isinstance(f, WorkerError)]
    own = [f for f in ours if not f.is_loss]
    lost = [str(f) for f in failures if not isinstance(f, WorkerError)]
    if own or (ours and not lost):
        return (own or ours)[0].reason
    text = "\n".join(lost) or str(error)
    # The last line of Ray's low-memory message only links to its documentation.
    return _LOW_MEMORY if "low on memory" in text else text.strip().splitlines()[-1]


def _worker_failures(error: Exception) -> list[Exception]:
    return list(getattr(error, "worker_failures", {}).values())
