"""What stages say in the log: counts of the data set, labels that are nearly all ignored."""

import numpy as np
import pytest

from slams_ray.data.schema import DatasetDescription
from slams_ray.stages.evaluate import missed_classes
from slams_ray.stages.prepare import PreparedData, Shard
from slams_ray.stages.refine import warnings_of
from slams_ray.stages.split_report import counts_of, unseen_classes
from slams_ray.stages.train_segmentation import mask_warnings


def test_the_images_masks_and_classes_of_a_split_are_one_line() -> None:
    split = {
        "num_images": 5,
        "num_masks": 2,
        "num_dropped_without_label": 1,
        "bad": [["x", "truncated"]],
        "images_per_class": {"cat": 1, "dog": 4},
    }
    assert counts_of(split) == (
        "5 images, 2 with a mask, 1 left out without a label, 1 bad; 2 classes: dog 4, cat 1"
    )
    many = {f"class{number:02d}": number for number in range(1, 21)}
    found = counts_of(split | {"images_per_class": many})
    assert found.endswith("20 classes: class20 20, ..., class01 1")


@pytest.mark.parametrize(("fraction", "warns"), [(0.5, False), (0.9, False), (0.95, True)])
def test_labels_that_are_nearly_all_ignored_are_warned_of(fraction: float, warns: bool) -> None:
    found = warnings_of(fraction)
    assert len(found) == warns
    assert all("95% of the pixels are ignored" in text for text in found)


def test_classes_that_no_training_image_has_are_warned_of() -> None:
    assert unseen_classes({"cat": 1, "dog": 4}) == []
    (text,) = unseen_classes({"cat": 1, "dog": 0, "cow": 0})
    assert text.startswith("no training image has 2 of 3 classes, such as dog: networks cannot")


def test_classes_of_which_no_pixel_is_found_are_warned_of() -> None:
    names = ("background", "cat", "dog", "cow")
    found = np.diag([9, 3, 1, 0])
    assert missed_classes(found, names) == [], "no mask has a cow"
    found[2] = [4, 2, 0, 0]
    (text,) = missed_classes(found, names)
    assert text.startswith(
        "the network finds no pixel of 1 of 2 classes in the masks, such as dog:"
    )


def test_learnt_masks_that_leave_no_pseudo_label_or_no_fair_score_are_named() -> None:
    def data(num_masks: int, *roles: str) -> PreparedData:
        shard = Shard("000000.parquet", 4, "", "")
        return PreparedData(
            directory="",
            description=DatasetDescription(
                name="",
                class_names=("background", "cat"),
                category_ids=(0, 1),
                palette=((0, 0, 0),) * 2,
            ),
            shards={role: [shard] for role in roles},
            num_masks=dict.fromkeys(roles, num_masks),
        )

    assert mask_warnings(data(3, "train", "val")) == []
    (everywhere,) = mask_warnings(data(4, "train", "val"))
    assert "no pseudo label" in everywhere
    (score,) = mask_warnings(data(3, "train"))
    assert "scored on masks that it learnt" in score
