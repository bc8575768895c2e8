"""Several processes share a GPU where one is used, and none asks for one where none is."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from slams_ray.runtime.cluster import (
    LOADING_TASKS_ON_CPU,
    connect,
    num_cpus,
    num_data_loading_tasks,
)
from slams_ray.runtime.pools import Pool, gpu_pool, pool
from tests.runtime.shared_gpu import NAMES, NUM_CPUS, NUM_GPUS, PER_GPU


@pytest.mark.ray
def test_shards_and_trials_hold_their_share_of_a_gpu(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "tests.runtime.shared_gpu", str(tmp_path)],
        capture_output=True,
        text=True,
        env={k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"},
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout.splitlines()[-1])
    loading_tasks = NUM_CPUS // NUM_GPUS - 1
    assert len(found["shards"]) == len(NAMES)
    for given in found["shards"]:
        assert given["gpus"] in ([0], [1])
        assert (given["share"], given["loading_tasks"]) == (1 / PER_GPU, loading_tasks)
    assert found["trials"] == [1 / PER_GPU] * 2
    assert found["on_cpu"] is None
    assert found["inference"] == {"num_actors": 4, "num_gpus": 1 / 4, "grows": False}


@pytest.mark.ray
def test_a_cluster_without_gpus_gives_no_actors(ray_cluster: None) -> None:
    # A benchmark before this test may have disconnected.
    connect()
    assert gpu_pool("auto", None, PER_GPU)() is None
    assert pool("auto", None, PER_GPU)() == Pool(num_actors=num_cpus(), num_gpus=0, grows=True)
    assert num_data_loading_tasks() == LOADING_TASKS_ON_CPU
