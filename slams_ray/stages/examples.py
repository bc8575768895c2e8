"""Chooses the training images that figures show."""

from collections.abc import Sequence

from slams_ray.training.data_loading import ShardColumns, read_rows
from slams_ray.training.samples import Row


def choose_examples(
    names: Sequence[str], sources: Sequence[ShardColumns], num_examples: int
) -> list[Row]:
    """Returns labelled images: first those that show a new class, then others.

    Args:
        names: shards to choose from, read in order until there are enough images.
        sources: columns to read, which include image_labels.
    """
    chosen: list[Row] = []
    others: list[Row] = []
    seen: set[int] = set()
    for name in names:
        for row in read_rows(name, sources).values():
            labels = set(row["image_labels"])
            if labels - seen:
                chosen.append(row)
                seen |= labels
            elif labels and len(others) < num_examples:
                others.append(row)
            if len(chosen) == num_examples:
                return chosen
        if len(chosen) + len(others) >= num_examples:
            break
    return (chosen + others)[:num_examples]
