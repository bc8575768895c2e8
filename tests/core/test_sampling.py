from collections import Counter

import numpy as np
import pytest

from slams_ray.core.sampling import (
    ROWS_PER_GROUP,
    Chunk,
    batch_share,
    num_lanes,
    num_steps,
    own_lanes,
    plan_chunks,
    sample_order,
)
from slams_ray.errors import ConfigError

EQUAL = tuple((f"shard-{i}", 20) for i in range(6))
UNEQUAL = tuple((f"shard-{i}", rows) for i, rows in enumerate((20, 19, 3, 26, 17)))
Sample = tuple[str, int, int, int, int]


def plan(
    shards: tuple[tuple[str, int], ...],
    *,
    batch_size: int = 8,
    rank: int = 0,
    num_workers: int = 1,
    first_step: int = 0,
    last_step: int = 30,
    seed: int = 0,
) -> list[Chunk]:
    return list(
        plan_chunks(
            shards,
            batch_size=batch_size,
            rank=rank,
            num_workers=num_workers,
            first_step=first_step,
            last_step=last_step,
            seed=seed,
        )
    )


def samples_of(chunks: list[Chunk]) -> list[Sample]:
    """(shard, row, block, lane, position) in the order in which the worker trains on them."""
    return [
        (chunk.shards[lane], row, chunk.block, chunk.lanes[lane], position)
        for chunk in chunks
        for lane, row, position in sample_order(chunk)
    ]


def batches_of(samples: list[Sample], size: int) -> list[list[Sample]]:
    assert len(samples) % size == 0
    return [samples[i : i + size] for i in range(0, len(samples), size)]


@pytest.mark.parametrize("shards", [EQUAL, UNEQUAL])
@pytest.mark.parametrize(("batch_size", "num_workers"), [(4, 2), (4, 3), (8, 2), (8, 3), (8, 4)])
def test_n_workers_form_the_batches_of_one(
    shards: tuple[tuple[str, int], ...], num_workers: int, batch_size: int
) -> None:
    alone = batches_of(samples_of(plan(shards, batch_size=batch_size)), batch_size)
    shared = [
        batches_of(
            samples_of(plan(shards, batch_size=batch_size, rank=rank, num_workers=num_workers)),
            batch_share(batch_size, len(shards), rank, num_workers),
        )
        for rank in range(num_workers)
    ]
    assert len(alone) == 30
    for step, batch in enumerate(alone):
        union = Counter(sample for worker in shared for sample in worker[step])
        assert union == Counter(batch)


@pytest.mark.parametrize("shards", [EQUAL, UNEQUAL])
@pytest.mark.parametrize("num_workers", [1, 2])
def test_resuming_at_any_step_yields_exactly_the_rest(
    shards: tuple[tuple[str, int], ...], num_workers: int
) -> None:
    whole = samples_of(plan(shards, num_workers=num_workers, rank=num_workers - 1))
    for first_step in range(31):
        rest = plan(shards, num_workers=num_workers, rank=num_workers - 1, first_step=first_step)
        assert samples_of(rest) == whole[first_step * 8 // num_workers :]


def test_every_image_of_equal_shards_is_visited_once_per_pass() -> None:
    shards = EQUAL[:4]
    everything = Counter((name, row) for name, rows in shards for row in range(rows))
    visited = [(s[0], s[1]) for s in samples_of(plan(shards, last_step=30))]
    for one_pass in range(3):
        assert Counter(visited[one_pass * 80 : (one_pass + 1) * 80]) == everything


def test_passes_and_seeds_differ_in_order() -> None:
    visited = [(s[0], s[1]) for s in samples_of(plan(EQUAL[:4], last_step=20))]
    other = [(s[0], s[1]) for s in samples_of(plan(EQUAL[:4], last_step=20, seed=1))]
    assert visited[:80] != visited[80:]
    assert visited != other


def test_the_same_seed_gives_the_same_plan() -> None:
    assert plan(UNEQUAL, seed=3) == plan(UNEQUAL, seed=3)


def test_a_batch_takes_equally_many_images_from_every_lane() -> None:
    for batch in batches_of(samples_of(plan(EQUAL, batch_size=12)), 12):
        assert Counter(s[3] for s in batch) == dict.fromkeys(range(6), 2)


def test_unequal_shards_are_all_visited_and_rows_stay_in_range() -> None:
    visited = samples_of(plan(UNEQUAL, batch_size=5, last_step=200))
    rows = dict(UNEQUAL)
    assert all(0 <= row < rows[name] for name, row, *_ in visited)
    assert {(s[0], s[1]) for s in visited} == {(n, r) for n, size in UNEQUAL for r in range(size)}


@pytest.mark.parametrize("shards", [EQUAL, UNEQUAL])
def test_a_chunk_touches_at_most_two_row_groups_of_a_shard(
    shards: tuple[tuple[str, int], ...],
) -> None:
    for first_step in (0, 3):
        for chunk in plan(shards, first_step=first_step, last_step=60):
            for rows in chunk.rows:
                assert 0 < len(rows) <= ROWS_PER_GROUP
                assert len({row // ROWS_PER_GROUP for row in rows}) <= 2


def test_a_sample_never_shares_its_augmentation_seed_with_another() -> None:
    keys = [s[2:] for s in samples_of(plan(UNEQUAL, last_step=100))]
    assert len(set(keys)) == len(keys)


def test_one_shard_smaller_than_the_batch_is_read_again_and_again() -> None:
    visited = Counter(s[1] for s in samples_of(plan((("only", 3),), batch_size=6, last_step=4)))
    assert visited == {0: 8, 1: 8, 2: 8}


@pytest.mark.parametrize(
    ("batch_size", "num_shards", "lanes"), [(8, 6, 4), (8, 8, 8), (12, 7, 6), (7, 6, 1), (1, 9, 1)]
)
def test_lanes_are_the_largest_divisor_that_the_shards_allow(
    batch_size: int, num_shards: int, lanes: int
) -> None:
    assert num_lanes(batch_size, num_shards) == lanes


def test_workers_that_cannot_share_the_lanes_raise_with_a_remedy() -> None:
    with pytest.raises(ConfigError, match=r"5 training workers .* 4 lanes.*images_per_shard"):
        own_lanes(4, 0, 5)


@pytest.mark.parametrize("num_workers", [1, 2, 3, 5, 8])
def test_workers_share_all_lanes_as_evenly_as_it_goes(num_workers: int) -> None:
    shares = [own_lanes(8, rank, num_workers) for rank in range(num_workers)]
    assert [lane for share in shares for lane in share] == list(range(8))
    sizes = [len(share) for share in shares]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(
    ("epochs", "num_images", "batch_size", "steps"),
    [(2, 80, 8, 20), (0.5, 30, 10, 2), (0.01, 5, 8, 1)],
)
def test_steps_are_epochs_of_images_in_batches_and_at_least_one(
    epochs: float, num_images: int, batch_size: int, steps: int
) -> None:
    assert num_steps(epochs, num_images, batch_size) == steps


def test_whole_row_groups_stay_together() -> None:
    chunks = plan((("only", 32),), batch_size=8, last_step=4)
    groups = [{row // ROWS_PER_GROUP for row in chunk.rows[0]} for chunk in chunks]
    assert all(len(group) == 1 for group in groups)
    assert np.array_equal(sorted(set.union(*groups)), range(4))
