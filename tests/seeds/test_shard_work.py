import json
from functools import reduce
from operator import add
from typing import Any

import numpy as np
import pytest

from slams_ray.data.image import decode_mask
from slams_ray.data.stored_maps import unpack_maps, upsample_stored
from slams_ray.metrics import confusion_matrix, segmentation_scores
from slams_ray.seeds.label_free import CriterionSums, criterion_sums
from slams_ray.seeds.seed import seed_labels
from slams_ray.seeds.shard_work import COUNTS, CRITERIA, CountMapper, pack, unpack
from slams_ray.seeds.threshold import ThresholdCounts, count_thresholds, threshold_curve

NUM_THRESHOLDS = 17
SYSTEMS = ("cam", "slams")


def scored_images(shard: Any, method: str) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(activation, class indices, ground truth) of the images that have a mask."""
    scored = []
    for image_row, row in zip(shard.images.to_pylist(), shard.activations.to_pylist(), strict=True):
        if image_row["mask"] is not None:
            ground_truth = decode_mask(image_row["mask"], "a")
            labels = np.asarray(row["image_labels"], np.int64)
            stored = unpack_maps(row[method], labels, row["height"], row["width"])
            scored.append((upsample_stored(stored, ground_truth.shape), labels, ground_truth))
    return scored


def total_of(summary: Any, method: str) -> ThresholdCounts:
    return unpack(ThresholdCounts, summary[COUNTS][method])


@pytest.mark.parametrize("method", ["cam", "slams"])
def test_counts_are_the_sum_of_those_of_the_images_with_a_mask(shard: Any, method: str) -> None:
    num_all_classes = len(shard.description.class_names)
    tables = {"images": shard.images, "activations": shard.activations}
    table, summary = CountMapper(SYSTEMS, num_all_classes, NUM_THRESHOLDS)(tables, None)
    expected = reduce(
        add,
        (
            count_thresholds(*image, num_all_classes, NUM_THRESHOLDS)
            for image in scored_images(shard, method)
        ),
    )
    for name, value in vars(total_of(summary, method)).items():
        np.testing.assert_array_equal(value, getattr(expected, name), name)
    assert table.column("image_id").to_pylist() == ["picture_0", "picture_2", "picture_3"]
    assert summary["num_rows"] == 3


def test_the_counts_give_the_miou_of_seeds_made_one_by_one(shard: Any) -> None:
    num_all_classes = len(shard.description.class_names)
    tables = {"images": shard.images, "activations": shard.activations}
    _, summary = CountMapper(SYSTEMS, num_all_classes, NUM_THRESHOLDS)(tables, None)
    curve = threshold_curve(total_of(summary, "slams"))
    for index in (0, 3, 9, 16):
        confusion = sum(
            confusion_matrix(
                truth, seed_labels(maps, labels, curve.thresholds[index]), num_all_classes
            )
            for maps, labels, truth in scored_images(shard, "slams")
        )
        assert curve.miou[index] == pytest.approx(segmentation_scores(confusion).miou, abs=1e-12)


def test_counts_survive_json(shard: Any) -> None:
    counts = count_thresholds(*scored_images(shard, "slams")[0], 7, NUM_THRESHOLDS)
    again = unpack(ThresholdCounts, json.loads(json.dumps(pack(counts))))
    for name, value in vars(counts).items():
        np.testing.assert_array_equal(value, getattr(again, name))
        assert getattr(again, name).dtype == np.int64


def test_counts_add_over_shards(shard: Any) -> None:
    mapper = CountMapper(SYSTEMS, 7, NUM_THRESHOLDS)
    whole = mapper({"images": shard.images, "activations": shard.activations}, None)[1]
    parts = [
        mapper(
            {
                "images": shard.images.slice(start, 2),
                "activations": shard.activations.slice(start, 2),
            },
            None,
        )[1]
        for start in (0, 2)
    ]
    total = total_of(parts[0], "cam") + total_of(parts[1], "cam")
    assert pack(total) == pack(total_of(whole, "cam"))


def test_criteria_are_of_every_labelled_image_with_or_without_a_mask(shard: Any) -> None:
    tables = {"images": shard.images, "activations": shard.activations}
    _, summary = CountMapper(SYSTEMS, 7, NUM_THRESHOLDS)(tables, None)
    found = unpack(CriterionSums, summary[CRITERIA]["slams"])
    expected = CriterionSums.zeros(NUM_THRESHOLDS)
    for row in shard.activations.to_pylist():
        if row["image_labels"]:
            maps = unpack_maps(row["slams"], row["image_labels"], row["height"], row["width"])
            scores = (maps.max(axis=0) / np.float32(255)).ravel()
            expected = expected + criterion_sums(scores, NUM_THRESHOLDS)
    assert found.num_images == expected.num_images == 3
    for name, value in vars(expected).items():
        np.testing.assert_allclose(getattr(found, name), value, err_msg=name)
