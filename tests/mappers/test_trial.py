from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from slams_ray.core.activation import upsample_stored
from slams_ray.core.crf import CrfKernels
from slams_ray.core.metrics import confusion_matrix
from slams_ray.core.pseudo_label import Confidence, Refinement, refine
from slams_ray.data.image import decode_image, decode_mask
from slams_ray.mappers.infer import SLAMS, unpack_maps
from slams_ray.mappers.trial import SLICE_SCHEMA, count_slice

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
    rows = [{**image, "maps": row[SLAMS]} for image, row in pairs if image["mask"] is not None]
    return pa.Table.from_pylist(rows, schema=SLICE_SCHEMA)


@pytest.mark.parametrize(
    ("form", "strengths"), [("label", (0.2, 0.4)), ("constant", (0.3, 0.5)), ("power", (4.0, 9.0))]
)
@pytest.mark.parametrize("cam_power", [1.0, 1.3])
def test_counts_equal_those_of_images_refined_one_by_one(
    shard: Any, form: str, strengths: tuple[float, ...], cam_power: float
) -> None:
    refinement = Refinement(
        form=form, gt_prob=0.7, iterations=2, kernels=KERNELS, cam_power=cam_power
    )
    table = slice_of(shard)
    num_categories = len(shard.description.class_names)
    found = count_slice(table, refinement, strengths, num_categories)
    for index, strength in enumerate(strengths):
        expected = np.zeros_like(found[index])
        for row in table.to_pylist():
            image = decode_image(row["image"], "a")
            stored = unpack_maps(row["maps"], row["image_labels"], *image.shape[:2])
            refined, _ = refine(
                image,
                upsample_stored(stored, image.shape[:2]),
                np.asarray(row["image_labels"], np.int64),
                Confidence(lenient=strength, chosen=strength, strict=strength),
                refinement,
            )
            expected += confusion_matrix(decode_mask(row["mask"], "a"), refined, num_categories)
        np.testing.assert_array_equal(found[index], expected)
    assert found[0].sum() == found[1].sum() > 0
