"""Which training images stand in pictures."""

from collections.abc import Sequence

from slams_ray.training.data_loading import ShardColumns, read_rows
from slams_ray.training.task import Row


def choose_examples(
    names: Sequence[str], sources: Sequence[ShardColumns], num_examples: int
) -> list[Row]:
    """The first labelled images, one new class after another where possible.

    Args:
        names: shards to look through; no more are read than needed.
        sources: their columns, image_labels among them.
    """
    chosen: list[Row] = []
    spare: list[Row] = []
    seen: set[int] = set()
    for name in names:
        for row in read_rows(name, sources).values():
            labels = set(row["image_labels"])
            if labels - seen:
                chosen.append(row)
                seen |= labels
            elif labels and len(spare) < num_examples:
                spare.append(row)
            if len(chosen) == num_examples:
                return chosen
        if len(chosen) + len(spare) >= num_examples:
            break
    return (chosen + spare)[:num_examples]
