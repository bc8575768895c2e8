"""Which failures of a training are retried, and what the user is told of them."""

import os
import pickle

import pytest
import torch
from ray.exceptions import NodeDiedError, RayActorError, RayTaskError, UserCodeException
from ray.train import WorkerGroupError

from slams_ray.errors import ArtifactError
from slams_ray.runtime.training_failure import (
    WorkerError,
    ends_watched,
    is_loss,
    may_be_retried,
    training_error,
    was_announced,
)

CLOSED = "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:544] Connection closed by peer"


def raised(error: Exception, cause: Exception | None = None) -> Exception:
    """The error with a traceback, as a worker catches it."""
    try:
        raise error from cause
    except Exception as caught:
        return caught


def of_data_task(error: Exception) -> RayTaskError:
    """How an error of a data-loading task reaches the training worker."""
    text = f"Traceback ...\nslams_ray.errors.{type(error).__name__}: {error}\n"
    return RayTaskError("read", text, UserCodeException("UDF failed"))


@pytest.mark.parametrize(
    "error",
    [
        FloatingPointError("loss is nan at step 3"),
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        torch.distributed.DistBackendError("NCCL error: unhandled cuda error, out of memory"),
        ArtifactError("shard a is missing or truncated (Connection reset by peer)"),
        of_data_task(ArtifactError("shard a is missing")),
        KeyError("image"),
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_would_repeat_ends_at_once(error: Exception) -> None:
    failure = WorkerError.of(raised(error))
    assert not failure.is_loss
    assert not may_be_retried(WorkerGroupError("", {0: failure}))


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError(CLOSED),
        torch.distributed.DistBackendError("NCCL error: remote process exited"),
        torch.distributed.DistNetworkError("failed to recv, got 0 bytes"),
        NodeDiedError("the node of a data-loading task"),
        raised(ValueError("no batch"), RayActorError(error_msg="its node is gone")),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_a_lost_process_or_node_leads_to_is_retried(error: Exception) -> None:
    failure = WorkerError.of(raised(error, error.__cause__))
    assert is_loss(error)
    assert may_be_retried(WorkerGroupError("", {0: failure}))


def test_an_error_beside_a_lost_worker_is_retried_and_beside_its_peers_complaint_is_not() -> None:
    own = WorkerError.of(raised(FloatingPointError("loss is nan at step 3")))
    peer = WorkerError.of(raised(RuntimeError(CLOSED)))
    died = RayActorError(error_msg="The worker died")
    assert may_be_retried(WorkerGroupError("", {0: own, 1: died}))
    assert not may_be_retried(WorkerGroupError("", {0: peer, 1: own}))
    told = training_error("cam", WorkerGroupError("", {0: peer, 1: own}))
    assert str(told) == "training cam failed: loss is nan at step 3"


def test_a_damaged_shard_read_by_a_data_task_is_named() -> None:
    failure = WorkerError.of(raised(of_data_task(ArtifactError("shard a is truncated: remove it"))))
    told = training_error("cam", WorkerGroupError("", {0: failure}))
    assert str(told) == "training cam failed: shard a is truncated: remove it"


def test_memory_that_is_short_comes_with_its_remedy() -> None:
    for error, remedy in (
        (WorkerError.of(raised(torch.OutOfMemoryError("CUDA out of memory"))), "batch size"),
        (
            RayActorError(error_msg="killed: the node is running low on memory"),
            "data_loading_tasks",
        ),
    ):
        assert remedy in str(training_error("cam", WorkerGroupError("", {0: error})))


def test_the_workers_own_traceback_survives_the_way_to_the_driver() -> None:
    failure = pickle.loads(pickle.dumps(WorkerError.of(raised(KeyError("image")))))
    told = training_error("cam", WorkerGroupError("", {0: failure}))
    assert "in raised" in told.__notes__[0]
    assert "KeyError: 'image'" in told.__notes__[0]


def test_the_loss_of_a_node_that_announced_it_is_known_as_such() -> None:
    peers = [WorkerError.of(raised(RuntimeError(CLOSED)), known) for known in (False, True)]
    assert was_announced(WorkerGroupError("", dict(enumerate(peers))))
    assert not was_announced(WorkerGroupError("", {0: peers[0]}))


WATCH = "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER"


@pytest.mark.parametrize(
    ("variables", "num_nodes", "expected"),
    [
        ({}, 1, "0"),
        ({}, 2, None),
        ({"RAY_ADDRESS": "10.0.0.1:6379"}, 1, None),
        ({WATCH: "1"}, 1, "1"),
    ],
)
def test_ends_of_nodes_are_watched_except_on_a_cluster_of_one_machine(
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    num_nodes: int,
    expected: str | None,
) -> None:
    for name in ("RAY_ADDRESS", WATCH):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("ray.nodes", lambda: [{}] * num_nodes)
    before = os.environ.get(WATCH)
    with ends_watched():
        assert os.environ.get(WATCH) == expected
    assert os.environ.get(WATCH) == before
