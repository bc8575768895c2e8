"""A draw of images that the order of the list does not change."""

import random

from slams_ray.data.image_draw import draw_images

CLASSES = ("cat", "dog", "horse", "sheep")
SORTED = [(f"{name}-{number}", f"{name}.parquet") for name in CLASSES for number in range(100)]


def test_a_sorted_and_a_shuffled_list_give_the_same_images_in_the_same_order() -> None:
    shuffled = random.Random(0).sample(SORTED, len(SORTED))
    assert draw_images(iter(shuffled), 80, seed=3) == draw_images(SORTED, 80, seed=3)


def test_a_list_sorted_by_class_gives_all_classes_in_both_halves() -> None:
    drawn = draw_images(SORTED, 80, seed=0)
    for half in (drawn[::2], drawn[1::2]):
        counts = [sum(shard == f"{name}.parquet" for _, shard in half) for name in CLASSES]
        assert min(counts) >= 4


def test_another_seed_draws_others_and_a_short_list_gives_all() -> None:
    assert draw_images(SORTED, 80, seed=0) != draw_images(SORTED, 80, seed=1)
    assert sorted(draw_images(SORTED, 1000, seed=0)) == sorted(SORTED)
