"""Four times the shards: the driver needs little more memory, and asks no more of each shard."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.ray, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
FEW, MANY = 150, 600


@pytest.fixture(scope="module")
def cost(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> dict[int, dict[str, Any]]:
    """Number of shards -> what `many_shards` reports of a driver of its own."""
    import ray

    environment = os.environ | {"RAY_ADDRESS": ray.get_runtime_context().gcs_address}

    def drive(num_shards: int) -> dict[str, Any]:
        workspace = str(tmp_path_factory.mktemp(f"shards{num_shards}"))
        command = [sys.executable, "-m", "tests.stages.many_shards", workspace, str(num_shards)]
        run = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )
        assert run.returncode == 0, run.stdout + run.stderr
        report = json.loads(run.stdout.splitlines()[-1])
        print(report)
        return report

    return {num_shards: drive(num_shards) for num_shards in (FEW, MANY)}


def test_every_shard_goes_through_every_stage(cost: dict[int, dict[str, Any]]) -> None:
    for num_shards, report in cost.items():
        assert report["rows"] == [num_shards] * 3
        assert report["same_again"] == [True] * 3


def test_the_driver_needs_little_more_memory_for_more_shards(
    cost: dict[int, dict[str, Any]],
) -> None:
    """It grew by 30 kB a shard; `runtime/test_many_shards` measures the summaries alone."""
    growth_kb = 1024 * (cost[MANY]["peak_mb"] - cost[FEW]["peak_mb"]) / (MANY - FEW)
    assert growth_kb < 60
    assert cost[MANY]["peak_mb"] < 1.1 * cost[FEW]["peak_mb"]


def test_the_driver_asks_the_store_the_same_of_every_shard(
    cost: dict[int, dict[str, Any]],
) -> None:
    """Nothing of a shard that is not there; two looks at the footer of one that is."""
    for num_shards, report in cost.items():
        assert report["calls"].get("table_metadata", 0) == 0
        assert report["calls_again"]["table_metadata"] == 2 * 3 * num_shards
    assert cost[FEW]["calls"] == cost[MANY]["calls"]
    assert cost[FEW]["calls_again"]["list_names"] == cost[MANY]["calls_again"]["list_names"]
