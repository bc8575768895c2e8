from typing import Any

import numpy as np
import pyarrow as pa
import torch

from slams_ray.data.image import decode_image, encode_mask
from slams_ray.data.stored_maps import stored_size, unpack_maps
from slams_ray.inference.activation_predictor import ActivationPredictor
from slams_ray.inference.shard_work import InferMapper
from slams_ray.networks.conditioned_network import ConditionedNetwork


def test_every_image_has_a_row_in_the_order_of_the_image_shard(shard: Any) -> None:
    assert shard.activations.column_names[-2:] == ["cam", "slams"]
    for column in ("image_id", "height", "width", "image_labels"):
        assert shard.activations.column(column).equals(shard.images.column(column))
    assert shard.infer_summary["num_rows"] == 4


def test_maps_unpack_to_those_of_the_predictor(shard: Any) -> None:
    rows = zip(shard.images.to_pylist(), shard.activations.to_pylist(), strict=True)
    for image_row, row in rows:
        image = decode_image(image_row["image"], "a")
        expected = shard.predictor.activate_batch([image], [row["image_labels"]])[0]
        for method in ("cam", "slams"):
            maps = unpack_maps(row[method], row["image_labels"], row["height"], row["width"])
            size = stored_size(row["height"], row["width"])
            assert maps.shape == (len(row["image_labels"]), *size)
            np.testing.assert_array_equal(maps, expected[method])


def test_the_two_methods_store_different_maps(shard: Any) -> None:
    row = shard.activations.to_pylist()[0]
    assert row["cam"] != row["slams"]


def test_an_image_without_label_has_no_maps(shard: Any) -> None:
    row = shard.activations.to_pylist()[2]
    assert row["image_labels"] == []
    assert (row["cam"], row["slams"]) == (b"", b"")
    assert unpack_maps(b"", [], row["height"], row["width"]).shape[0] == 0


def test_the_summary_counts_the_bytes_of_all_maps(shard: Any) -> None:
    rows = shard.activations.to_pylist()
    total = sum(len(row["slams"]) + len(row["cam"]) for row in rows)
    assert shard.infer_summary["num_bytes"] == total


def test_inference_is_deterministic(shard: Any) -> None:
    num_all_classes = len(shard.description.class_names)
    again, _ = InferMapper(shard.predictor, num_all_classes)({"images": shard.images}, None)
    assert again.equals(shard.activations)


def test_packed_maps_come_back() -> None:
    maps = np.random.default_rng(0).integers(0, 256, (3, *stored_size(57, 70))).astype(np.uint8)
    np.testing.assert_array_equal(unpack_maps(maps.tobytes(), [1, 4, 6], 57, 70), maps)


def test_empty_maps_are_counted_per_system_and_class(shard: Any) -> None:
    class Ones(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.ones(len(images), len(shard.description.class_names) - 1, 4, 4)

    class Zeros(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            logits = torch.ones(len(images), len(shard.description.class_names) - 1, 4, 4)
            logits[:, 1] = -1
            return logits

    predictor = ActivationPredictor(
        {"cam": Ones(), "slams": Zeros()}, scales=(1.0,), flip=False, device=torch.device("cpu")
    )
    _, summary = InferMapper(predictor, len(shard.description.class_names))(
        {"images": shard.images}, None
    )
    labels = [c for row in shard.activations.to_pylist() for c in row["image_labels"]]
    expected = [labels.count(c) for c in range(len(shard.description.class_names))]
    assert summary["num_maps"] == expected
    assert summary["num_empty/cam"] == [0] * len(expected)
    assert summary["num_empty/slams"] == [n if c == 2 else 0 for c, n in enumerate(expected)]


def test_labels_of_a_shard_reach_the_network_that_was_trained_on_them(shard: Any) -> None:
    torch.manual_seed(0)
    network = ConditionedNetwork("tiny_resnet", 8, len(shard.description.class_names) - 1)
    for branch in network.head.branches:
        torch.nn.init.normal_(branch.weight, std=0.5)
    predictor = ActivationPredictor(
        {"amn": network}, scales=(1.0,), flip=True, device=torch.device("cpu")
    )
    mapper = InferMapper(predictor, len(shard.description.class_names))
    rows = shard.images.to_pylist()
    masks = [np.full((row["height"], row["width"]), 255, np.uint8) for row in rows]
    encoded = [encode_mask(mask, shard.description.palette) for mask in masks]
    labels = pa.table({"image_id": shard.images["image_id"], "pseudo_label": encoded})
    without, _ = mapper({"images": shard.images}, None)
    found, _ = mapper({"images": shard.images, "labels": labels}, None)
    size = stored_size(rows[0]["height"], rows[0]["width"])
    maps = np.frombuffer(found["amn"][0].as_py(), np.uint8).reshape(-1, *size)
    # Labelled everywhere: every map is scaled to the whole range.
    assert (maps.min(axis=(1, 2)) == 0).all()
    assert (maps.max(axis=(1, 2)) >= 254).all()
    assert without["amn"][0] != found["amn"][0]
    assert without["image_labels"] == found["image_labels"]
