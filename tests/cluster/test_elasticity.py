"""Nodes that join and nodes that go while work is under way."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from slams_ray.artifacts import read_record
from slams_ray.faults.driver import Driver
from slams_ray.faults.nodes import Nodes, Place
from slams_ray.faults.outputs import look
from slams_ray.runtime.finished_shards import read_note
from slams_ray.runtime.trainer import TRAINING_NAME
from tests.cluster.slow_shards import FINGERPRINT, SECONDS

pytestmark = [pytest.mark.ray, pytest.mark.slow]

NUM_SHARDS = 300
WORKERS = ("ray::RayTrainWorker",)


@pytest.fixture(scope="module")
def one_node() -> Iterator[Nodes]:
    """A cluster of one node; who adds another takes it away again."""
    nodes = Nodes(cpus_per_node=1, places=(Place(),))
    try:
        nodes.start()
        yield nodes
    finally:
        nodes.stop()


@pytest.mark.long
@pytest.mark.parametrize("kind", ["tasks", "actors"])
def test_a_node_that_joins_takes_shards(kind: str, one_node: Nodes, tmp_path: Path) -> None:
    output_dir = tmp_path / "output"
    arguments = ["-m", "tests.cluster.slow_shards", str(output_dir), str(NUM_SHARDS), kind]
    driver = Driver(arguments, one_node.environment, tmp_path / "driver.log")
    assert driver.wait_until(lambda: len(look(output_dir).finished) > 2, 300)
    one_node.add()
    try:
        assert driver.wait_until(lambda: len(makers(output_dir)) == 2, NUM_SHARDS * SECONDS)
        (tmp_path / "HURRY").touch()
        assert driver.end(300) == 0, driver.log.read_text()
    finally:
        one_node.kill_last()
    by_node = json.loads(driver.log.read_text().splitlines()[-1])
    assert sum(by_node.values()) == NUM_SHARDS
    assert by_node.keys() == makers(output_dir)


def makers(output_dir: Path) -> set[str]:
    """Nodes that have made the shards there are."""
    notes = [read_note(str(path), FINGERPRINT) for path in output_dir.glob("*.parquet")]
    return {note["node"] for note in notes if note is not None}


@pytest.mark.long
@pytest.mark.parametrize(
    ("comes_back", "num_epochs", "at_the_end"),
    [(False, 6, [1]), (True, 40, [1, 1])],
    ids=["gone for good", "comes back"],
)
def test_a_training_goes_on_with_the_workers_there_are(
    comes_back: bool, num_epochs: int, at_the_end: list[int], tmp_path: Path
) -> None:
    """Ray Train looks for new nodes once a minute: where one comes, steps are long."""
    nodes = Nodes(cpus_per_node=1, places=(Place(), Place()))
    workers = ["--compute.train-workers", "2", "--compute.min-train-workers", "1"]
    length = ["--encoder.training.epochs", str(num_epochs)]
    length += ["--encoder.training.checkpoint-every-steps", "5"]
    side = "256" if comes_back else "56"
    length += ["--encoder.training.crop-px", side, "--encoder.training.long-side-px", side, side]
    try:
        nodes.start()
        arguments = ["-m", "jobs.pipeline", "smoke", "--until", "train_encoder", *workers, *length]
        arguments += ["--workspace", str(tmp_path)]
        driver = Driver(arguments, nodes.environment, tmp_path / "driver.log")
        stage_dir = tmp_path / "train_encoder"
        assert driver.wait_until(lambda: look(stage_dir).checkpoint > 0, 900)
        nodes.kill_last()
        if comes_back:
            reached = look(stage_dir).checkpoint
            assert driver.wait_until(lambda: look(stage_dir).checkpoint > reached, 900)
            assert len(nodes.workers(WORKERS)) == 1
            nodes.add()
            assert driver.wait_until(lambda: len(nodes.workers(WORKERS)) == 2, 900)
        assert driver.end(1800) == 0, driver.log.read_text()
    finally:
        nodes.stop()
    (output_dir,) = stage_dir.iterdir()
    record = read_record(str(output_dir))
    assert record is not None
    assert list(record.nodes.values()) == at_the_end
    history = json.loads((output_dir / TRAINING_NAME).read_text())["history"]
    steps = [point["step"] for point in history]
    assert steps == sorted(set(steps))
    assert steps[-1] == record.notes["num_steps"]
