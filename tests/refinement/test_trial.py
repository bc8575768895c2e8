from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from slams_ray.data.image import decode_image, decode_mask
from slams_ray.data.stored_maps import unpack_maps, upsample_stored
from slams_ray.errors import ArtifactError
from slams_ray.metrics import class_counts, confusion_matrix
from slams_ray.refinement.crf.kernels import CrfKernels
from slams_ray.refinement.pseudo_label import ConfidentPair, Refinement, refine
from slams_ray.refinement.trial import (
    MAPS,
    SLICE_SCHEMA,
    PairCounts,
    count_slice,
    maps_schema,
    with_maps,
)

KERNELS = CrfKernels(
    gaussian_sxy_px=3.0,
    gaussian_compat=3.0,
    bilateral_sxy_px=30.0,
    bilateral_srgb=5.0,
    bilateral_compat=10.0,
)


def slice_of(shard: Any) -> pa.Table:
    """The rows of the shard that have a mask, one of them without labels."""
    pairs = zip(shard.images.to_pylist(), shard.activations.to_pylist(), strict=True)
    rows = [{**image, "slams": row["slams"]} for image, row in pairs if image["mask"] is not None]
    return with_maps(
        pa.Table.from_pylist(rows, schema=SLICE_SCHEMA),
        pa.Table.from_pylist(rows, schema=maps_schema("slams")),
        "slams",
    )


def test_maps_of_other_images_are_refused(shard: Any) -> None:
    table = slice_of(shard)
    maps = table.select(["image_id", MAPS])
    with pytest.raises(ArtifactError, match="of different images"):
        with_maps(table.drop_columns([MAPS]), maps.slice(1), MAPS)


@pytest.mark.parametrize(
    ("form", "values"), [("label", (0.2, 0.4)), ("constant", (0.3, 0.5)), ("power", (4.0, 9.0))]
)
@pytest.mark.parametrize("cam_power", [1.0, 1.3])
def test_counts_equal_those_of_images_refined_one_by_one(
    shard: Any, form: str, values: tuple[float, ...], cam_power: float
) -> None:
    refinement = Refinement(
        form=form, gt_prob=0.7, iterations=2, kernels=KERNELS, cam_power=cam_power
    )
    table = slice_of(shard)
    num_all_classes = len(shard.description.class_names)
    found = count_slice(table, refinement, values, num_all_classes)
    for index, value in enumerate(values):
        expected = np.zeros((num_all_classes, num_all_classes + 1), np.int64)
        for row in table.to_pylist():
            image = decode_image(row["image"], "a")
            stored = unpack_maps(row[MAPS], row["image_labels"], *image.shape[:2])
            refined, _ = refine(
                image,
                upsample_stored(stored, image.shape[:2]),
                np.asarray(row["image_labels"], np.int64),
                ConfidentPair(background=value, chosen=value, foreground=value),
                refinement,
            )
            expected += confusion_matrix(decode_mask(row["mask"], "a"), refined, num_all_classes)
        np.testing.assert_array_equal(found.classes[index, index], class_counts(expected))
        assert found.num_ignored[index, index] == 0
        assert found.num_pixels == expected.sum() > 0


@pytest.mark.parametrize(("form", "values"), [("label", (0.2, 0.4)), ("power", (9.0, 4.0))])
def test_a_pair_counts_the_pseudo_labels_with_its_ignore_band(
    shard: Any, form: str, values: tuple[float, float]
) -> None:
    refinement = Refinement(form=form, gt_prob=0.7, iterations=2, kernels=KERNELS)
    table = slice_of(shard)
    num_all_classes = len(shard.description.class_names)
    found = count_slice(table, refinement, values, num_all_classes)
    expected = np.zeros((num_all_classes, num_all_classes + 1), np.int64)
    for row in table.to_pylist():
        image = decode_image(row["image"], "a")
        stored = unpack_maps(row[MAPS], row["image_labels"], *image.shape[:2])
        _, pseudo_label = refine(
            image,
            upsample_stored(stored, image.shape[:2]),
            np.asarray(row["image_labels"], np.int64),
            ConfidentPair(background=values[0], chosen=values[0], foreground=values[1]),
            refinement,
        )
        expected += confusion_matrix(decode_mask(row["mask"], "a"), pseudo_label, num_all_classes)
    np.testing.assert_array_equal(found.classes[0, 1], class_counts(expected))
    assert found.num_ignored[0, 1] == expected[:, -1].sum() > 0
    assert found.ignored(0, 1) == pytest.approx(expected[:, -1].sum() / expected.sum())


def test_the_best_pair_keeps_within_the_share_it_may_ignore() -> None:
    counts = PairCounts.zeros(3, 2)
    for low, high in [(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)]:
        correct = 50 + 10 * (high - low)
        counts.classes[low, high] = [[correct, correct], [60, 60], [60, 60]]
        counts.num_ignored[low, high] = 20 * (high - low)
    counts = replace(counts, num_pixels=100)
    assert counts.best_pair(1, 1.0) == (0, 2)
    assert counts.best_pair(1, 0.3) in {(0, 1), (1, 2)}
    assert counts.best_pair(1, 0.1) == (1, 1)
