from collections import Counter

import pytest

from slams_ray.errors import ConfigError
from slams_ray.training.sampling import (
    ROWS_PER_GROUP,
    STEPS_PER_LOADING_TASK,
    LoadingTask,
    num_steps,
    own_streams,
    plan_loading,
    sample_order,
)

EQUAL = tuple((f"shard-{i}", 20) for i in range(6))
UNEQUAL = tuple((f"shard-{i}", rows) for i, rows in enumerate((20, 19, 3, 26, 17)))
Shards = tuple[tuple[str, int], ...]
Sample = tuple[int, int, str, int]


def plan(
    shards: Shards,
    *,
    batch_size: int = 8,
    rank: int = 0,
    num_workers: int = 1,
    first_step: int = 0,
    last_step: int = 30,
    seed: int = 0,
) -> list[LoadingTask]:
    return list(
        plan_loading(
            shards,
            batch_size=batch_size,
            rank=rank,
            num_workers=num_workers,
            first_step=first_step,
            last_step=last_step,
            seed=seed,
        )
    )


def samples_of(loading_tasks: list[LoadingTask]) -> list[Sample]:
    """(step, stream, shard, row) in the order in which the worker trains on them."""
    return [sample for loading_task in loading_tasks for sample in sample_order(loading_task)]


def images_of(loading_tasks: list[LoadingTask]) -> list[tuple[str, int]]:
    return [(shard, row) for _, _, shard, row in samples_of(loading_tasks)]


@pytest.mark.parametrize("shards", [EQUAL, UNEQUAL, EQUAL[:1]])
@pytest.mark.parametrize("batch_size", [4, 8, 13])
@pytest.mark.parametrize("num_workers", [2, 3, 4])
def test_n_workers_form_the_batches_of_one(
    shards: Shards, num_workers: int, batch_size: int
) -> None:
    alone = samples_of(plan(shards, batch_size=batch_size))
    assert [sample[:2] for sample in alone] == [
        (step, stream) for step in range(30) for stream in range(batch_size)
    ]
    shared = []
    for rank in range(num_workers):
        own = samples_of(plan(shards, batch_size=batch_size, rank=rank, num_workers=num_workers))
        share = len(own_streams(batch_size, rank, num_workers))
        assert [sample[0] for sample in own] == [s for s in range(30) for _ in range(share)]
        shared += own
    assert sorted(shared) == sorted(alone)


@pytest.mark.parametrize("shards", [EQUAL, UNEQUAL])
@pytest.mark.parametrize("num_workers", [1, 2])
def test_resuming_at_any_step_yields_exactly_the_rest(shards: Shards, num_workers: int) -> None:
    whole = samples_of(plan(shards, num_workers=num_workers, rank=num_workers - 1))
    for first_step in range(31):
        rest = plan(shards, num_workers=num_workers, rank=num_workers - 1, first_step=first_step)
        assert samples_of(rest) == whole[first_step * 8 // num_workers :]


@pytest.mark.parametrize(
    ("batch_size", "num_shards"), [(13, 12), (16, 15), (16, 5), (7, 3), (5, 1), (32, 2)]
)
def test_every_batch_size_uses_all_images_of_any_number_of_shards_equally(
    batch_size: int, num_shards: int
) -> None:
    shards = tuple((f"shard-{i}", 16) for i in range(num_shards))
    num_images = 16 * num_shards
    passes = 12
    visited = images_of(
        plan(shards, batch_size=batch_size, last_step=passes * num_images // batch_size)
    )
    counts = Counter(visited)
    assert len(counts) == num_images
    # Streams end a pass at different steps, so some images are a visit ahead of others.
    assert max(counts.values()) - min(counts.values()) <= 2
    per_shard = Counter(shard for shard, _ in visited)
    assert max(per_shard.values()) - min(per_shard.values()) <= 32


def test_every_image_is_visited_once_per_pass_where_units_fill_the_streams() -> None:
    shards = tuple((f"shard-{i}", 16) for i in range(4))
    everything = Counter((name, row) for name, rows in shards for row in range(rows))
    visited = images_of(plan(shards, last_step=24))
    for one_pass in range(3):
        assert Counter(visited[one_pass * 64 : (one_pass + 1) * 64]) == everything


def test_a_batch_holds_no_image_twice_while_there_are_enough() -> None:
    for shards in (EQUAL, UNEQUAL):
        samples = samples_of(plan(shards, last_step=200))
        repeated = 0
        for step in range(200):
            batch = [sample[2:] for sample in samples[step * 8 : (step + 1) * 8]]
            repeated += len(batch) - len(set(batch))
        # Only where one pass ends and the next begins.
        assert repeated < 0.02 * len(samples)


def test_passes_and_random_seeds_differ_in_order() -> None:
    visited = images_of(plan(EQUAL[:4], last_step=20))
    other = images_of(plan(EQUAL[:4], last_step=20, seed=1))
    assert visited[:80] != visited[80:]
    assert visited != other


def test_the_same_random_seed_gives_the_same_plan() -> None:
    assert plan(UNEQUAL, seed=3) == plan(UNEQUAL, seed=3)


@pytest.mark.parametrize("shards", [EQUAL, UNEQUAL])
def test_a_chunk_touches_few_row_groups_of_each_stream(shards: Shards) -> None:
    """A data-loading task reads what it needs of a shard and not the whole shard."""
    for first_step in (0, 3):
        loading_tasks = plan(shards, first_step=first_step, last_step=60)
        touched = [
            len({(shard, row // ROWS_PER_GROUP) for shard, row in rows})
            for loading_task in loading_tasks
            for rows in loading_task.rows
        ]
        assert all(
            0 < len(rows) <= STEPS_PER_LOADING_TASK
            for loading_task in loading_tasks
            for rows in loading_task.rows
        )
        assert sum(touched) / len(touched) < 3
        assert max(touched) <= 5


def test_a_small_shard_is_read_again_and_again() -> None:
    visited = Counter(row for _, row in images_of(plan((("only", 3),), batch_size=6, last_step=4)))
    assert visited == {0: 8, 1: 8, 2: 8}


def test_more_workers_than_images_of_a_batch_raise_with_a_remedy() -> None:
    with pytest.raises(ConfigError, match=r"5 training workers .* 4 images.*batch_size"):
        own_streams(4, 0, 5)


@pytest.mark.parametrize("num_workers", [1, 2, 3, 5, 8])
def test_workers_share_all_streams_as_evenly_as_it_goes(num_workers: int) -> None:
    shares = [own_streams(8, rank, num_workers) for rank in range(num_workers)]
    assert [stream for share in shares for stream in share] == list(range(8))
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
