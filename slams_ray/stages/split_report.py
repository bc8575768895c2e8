"""Counts of the splits of a prepared data set, in words for the log and the summary."""

from collections.abc import Mapping
from typing import Any

MOST_CLASSES_SHOWN = 10
"""Largest number of classes whose images are counted in the log one by one."""


def split_counts(notes: dict[str, Any]) -> dict[str, int]:
    """Returns role -> number of images."""
    return {role: split["num_images"] for role, split in notes["splits"].items()}


def counts_of(split: Mapping[str, Any]) -> str:
    """Returns one line with the numbers of images, masks and images of each class."""
    per_class = split["images_per_class"]
    by_number = sorted(per_class, key=lambda name: -per_class[name])
    if len(by_number) > MOST_CLASSES_SHOWN:
        by_number = [by_number[0], "...", by_number[-1]]
    classes = ", ".join(
        f"{name} {per_class[name]}" if name in per_class else name for name in by_number
    )
    return (
        f"{split['num_images']} images, {split['num_masks']} with a mask, "
        f"{split['num_dropped_without_label']} left out without a label, {len(split['bad'])} bad; "
        f"{len(per_class)} classes: {classes}"
    )


def unseen_classes(images_per_class: Mapping[str, int]) -> list[str]:
    """Returns a warning where networks have nothing to learn a class from."""
    unseen = [name for name, num_images in images_per_class.items() if not num_images]
    if not unseen:
        return []
    return [
        f"no training image has {len(unseen)} of {len(images_per_class)} classes, such as "
        f"{unseen[0]}: networks cannot learn them. Add such images, or leave the classes out with "
        "data.classes"
    ]
