"""Stages on three nodes: every one of them works, and the record says so."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from slams_ray.faults.driver import Driver
from slams_ray.faults.nodes import Nodes, Place

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.long]

SCRIPT = str(Path(__file__).with_name("namespaces.sh"))
NAMES = ("slams-a", "slams-b", "slams-c")
# More shards than the first process can take before the others are up.
ARGUMENTS = (
    *("-m", "jobs.pipeline", "smoke", "--until", "train_encoder"),
    *("--data.images-per-shard", "1", "--compute.train-workers", "2"),
)


@pytest.fixture
def namespaces() -> Iterator[tuple[Place, ...]]:
    """Three machines, as far as the network can tell."""
    made = subprocess.run(
        ["bash", SCRIPT, "up", *NAMES], capture_output=True, text=True, check=False
    )
    if made.returncode:
        subprocess.run(["bash", SCRIPT, "down", *NAMES], check=True)
        pytest.skip(f"network namespaces cannot be made here: {made.stderr.strip()}")
    yield tuple(
        Place(address=f"10.77.0.{number}", entrance=("ip", "netns", "exec", name))
        for number, name in enumerate(NAMES, start=1)
    )
    subprocess.run(["bash", SCRIPT, "down", *NAMES], check=True)


def test_machines_with_addresses_of_their_own_share_the_work(
    namespaces: tuple[Place, ...], tmp_path: Path
) -> None:
    nodes = Nodes(cpus_per_node=1, places=namespaces)
    try:
        nodes.start()
        arguments = [*ARGUMENTS, "--workspace", str(tmp_path)]
        log = tmp_path / "driver.log"
        driver = Driver(arguments, nodes.environment, log, namespaces[0].entrance)
        assert driver.end(900) == 0, log.read_text()
    finally:
        nodes.stop()
    prepared, trained = (
        json.loads(path.read_text())["nodes"]
        for stage in ("prepare", "train_encoder")
        for path in tmp_path.glob(f"{stage}/*/record.json")
    )
    assert list(trained.values()) == [1, 1], "each worker on a node of its own"
    assert sum(prepared.values()) == 24 + 8
    assert len(prepared) > 1
