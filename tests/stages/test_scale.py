"""Four times the shards: the driver needs little more memory, and asks no more of each shard."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.long]

ROOT = Path(__file__).parents[2]


@pytest.fixture(
    scope="module",
    params=[(40, 160), (500, 2000)],
    ids=["160 shards", "2000 shards"],
)
def costs(
    request: pytest.FixtureRequest, ray_cluster: None, tmp_path_factory: pytest.TempPathFactory
) -> list[dict[str, Any]]:
    """What `many_shards` reports of a driver of its own, for few shards and for many."""
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

    return [drive(num_shards) for num_shards in request.param]


def test_every_shard_goes_through_every_stage(costs: list[dict[str, Any]]) -> None:
    for report in costs:
        assert report["rows"] == [report["shards"]] * 4
        assert report["same_again"] == [True] * 4


def test_the_driver_needs_little_more_memory_for_more_shards(costs: list[dict[str, Any]]) -> None:
    """It grew by 30 kB a shard; `runtime/test_many_shards` measures the summaries alone."""
    few, many = costs
    growth_kb = 1024 * (many["peak_mb"] - few["peak_mb"]) / (many["shards"] - few["shards"])
    assert growth_kb < 60
    assert many["peak_mb"] < 1.1 * few["peak_mb"]


def test_the_time_of_the_driver_is_linear(costs: list[dict[str, Any]]) -> None:
    """Of its processor alone; were each shard compared with all others, it would be four times."""
    few, many = (report["driver_cpu_seconds"] / report["shards"] for report in costs)
    assert many < 1.3 * few


def test_the_driver_asks_the_store_the_same_of_every_shard(costs: list[dict[str, Any]]) -> None:
    """Nothing of a shard that is not there; two looks at the footer of one that is."""
    few, many = costs
    for report in costs:
        assert report["calls"].get("table_metadata", 0) == 0
        assert report["calls_again"]["table_metadata"] == 2 * 4 * report["shards"]
    assert few["calls"] == many["calls"]
    assert few["calls_again"]["list_names"] == many["calls_again"]["list_names"]
