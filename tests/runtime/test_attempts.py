"""Attempts at a shard: which are counted, and when an image is blamed."""

from pathlib import Path

import pytest

from slams_ray.errors import ArtifactError
from slams_ray.runtime.attempts import MAX_ATTEMPTS, SIGHTINGS, AttemptLog


class Shard:
    """Processes that begin a shard one after another, each dying at an image or before any."""

    def __init__(self, directory: Path) -> None:
        self.path = str(directory / "attempts.json")
        self.nodes = {"a"}

    def die_at(self, image: str | None, node: str = "a") -> frozenset[str]:
        """Images blamed at the beginning of this attempt."""
        log = AttemptLog(self.path, "run")
        log.begin("refine: shard 7", node, self.nodes.__contains__)
        blamed = log.crashed
        if image is not None:
            log.note(image)
        return blamed


@pytest.fixture
def shard(tmp_path: Path) -> Shard:
    return Shard(tmp_path)


def test_a_shard_is_begun_a_bounded_number_of_times(shard: Shard) -> None:
    for _ in range(MAX_ATTEMPTS):
        shard.die_at(None)
    with pytest.raises(ArtifactError, match=rf"refine: shard 7 ended its process {MAX_ATTEMPTS} t"):
        shard.die_at(None)


def test_an_image_is_blamed_when_processes_died_at_it_repeatedly(shard: Shard) -> None:
    assert shard.die_at(None) == frozenset()
    for _ in range(SIGHTINGS):
        assert shard.die_at("cat") == frozenset()
    assert shard.die_at(None) == {"cat"}


def test_deaths_at_different_images_blame_none_of_them_and_are_bounded(shard: Shard) -> None:
    for number in range(MAX_ATTEMPTS):
        assert shard.die_at(f"image {number}") == frozenset()
    with pytest.raises(ArtifactError, match="memory is short"):
        shard.die_at(None)


def test_any_number_of_crashing_images_is_found(shard: Shard) -> None:
    shard.die_at(None)
    images = [f"image {number}" for number in range(2 * MAX_ATTEMPTS)]
    for image in images:
        for _ in range(SIGHTINGS):
            shard.die_at(image)
    assert shard.die_at(None) == set(images)


def test_a_lost_node_counts_neither_as_attempt_nor_against_the_image(shard: Shard) -> None:
    shard.die_at("cat")
    for number in range(3 * MAX_ATTEMPTS):
        # On nodes that are gone by the time of the next attempt.
        assert shard.die_at("cat", node=f"lost {number}") == frozenset()
    assert shard.die_at("cat") == frozenset()
    assert shard.die_at(None) == {"cat"}


def test_another_run_begins_anew_and_a_finished_shard_leaves_nothing(
    shard: Shard, tmp_path: Path
) -> None:
    for _ in range(MAX_ATTEMPTS):
        shard.die_at("cat")
    log = AttemptLog(shard.path, "another run")
    log.begin("shard", "a", lambda _: True)
    assert log.is_first
    assert log.crashed == frozenset()
    log.end()
    assert list(tmp_path.iterdir()) == []


def test_one_of_two_that_make_the_same_shard_ends_after_the_other(shard: Shard) -> None:
    logs = [AttemptLog(shard.path, "run") for _ in range(2)]
    for log in logs:
        log.begin("import_labels: shard 7", "a", shard.nodes.__contains__)
    for log in logs:
        log.end()
    assert not Path(shard.path).exists()
