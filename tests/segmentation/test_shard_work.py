import io
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from slams_ray.data.image import decode_image, decode_mask
from slams_ray.inference.segmentation_predictor import SegmentationPredictor
from slams_ray.metrics import confusion_matrix
from slams_ray.networks.segmentation_network import SegmentationNetwork
from slams_ray.segmentation.shard_work import PREDICTION_SCHEMA, EvaluateMapper


@pytest.fixture(scope="module")
def segmenter() -> SegmentationPredictor:
    torch.manual_seed(0)
    network = SegmentationNetwork("tiny_resnet", 8, 6, "deeplabv2")
    return SegmentationPredictor(network, scales=(1.0,), flip=True, device=torch.device("cpu"))


@pytest.fixture(scope="module")
def evaluated(shard: Any, segmenter: SegmentationPredictor) -> tuple[pa.Table, dict[str, Any]]:
    return EvaluateMapper(shard.description, segmenter)({"images": shard.images}, None)


def test_every_image_is_predicted_and_those_with_a_mask_are_scored(
    shard: Any, evaluated: Any
) -> None:
    table, summary = evaluated
    assert table.schema.equals(PREDICTION_SCHEMA)
    assert table.column("image_id").equals(shard.images.column("image_id"))
    assert (summary["num_rows"], summary["num_scored"]) == (4, 3)


def test_the_confusion_is_that_of_its_own_predictions(shard: Any, evaluated: Any) -> None:
    table, summary = evaluated
    num_all_classes = len(shard.description.class_names)
    expected = np.zeros((num_all_classes, num_all_classes + 1), np.int64)
    annotated = 0
    for image_row, row in zip(shard.images.to_pylist(), table.to_pylist(), strict=True):
        if image_row["mask"] is not None:
            truth = decode_mask(image_row["mask"], "a")
            expected += confusion_matrix(
                truth, decode_mask(row["prediction"], "a"), num_all_classes
            )
            annotated += int((truth != 255).sum())
    np.testing.assert_array_equal(summary["confusion"], expected)
    assert expected.sum() == annotated


def test_predictions_are_palette_pngs_of_what_the_network_says(
    shard: Any, evaluated: Any, segmenter: SegmentationPredictor
) -> None:
    for image_row, row in zip(shard.images.to_pylist(), evaluated[0].to_pylist(), strict=True):
        assert Image.open(io.BytesIO(row["prediction"])).mode == "P"
        expected = segmenter.predict(decode_image(image_row["image"], "a"))
        np.testing.assert_array_equal(decode_mask(row["prediction"], "a"), expected)


def test_refined_predictions_are_counted_apart_and_do_not_change_the_shard(
    shard: Any, evaluated: Any, segmenter: SegmentationPredictor
) -> None:
    refining = SegmentationPredictor(
        segmenter.network,
        scales=(1.0,),
        flip=True,
        device=torch.device("cpu"),
        refine=lambda image, probabilities: np.zeros(image.shape[:2], np.uint8),
    )
    table, summary = EvaluateMapper(shard.description, refining)({"images": shard.images}, None)
    assert table.equals(evaluated[0])
    assert summary["confusion"] == evaluated[1]["confusion"]
    refined = np.array(summary["refined_confusion"])
    assert refined[:, 0].sum() == refined.sum() == np.sum(summary["confusion"])
    assert "refined_confusion" not in evaluated[1]


def test_the_confusion_adds_over_shards(shard: Any, evaluated: Any, segmenter: Any) -> None:
    mapper = EvaluateMapper(shard.description, segmenter)
    parts = [mapper({"images": shard.images.slice(start, 2)}, None)[1] for start in (0, 2)]
    total = np.add(parts[0]["confusion"], parts[1]["confusion"])
    np.testing.assert_array_equal(total, evaluated[1]["confusion"])
