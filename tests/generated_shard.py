import io
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from slams_ray.data.schema import DatasetDescription, Item, voc_palette
from slams_ray.data.shard_work import PrepareMapper
from slams_ray.data.synthetic import CLASSES, draw_scene
from slams_ray.inference.activation_predictor import ActivationPredictor
from slams_ray.inference.shard_work import InferMapper
from slams_ray.networks.activation_network import ActivationNetwork

LABELLED, WITHOUT_MASK, WITHOUT_LABEL, LAST = range(4)


def give_mask(mask: np.ndarray, height: int, width: int) -> np.ndarray:
    assert mask.shape == (height, width)
    return mask


@dataclass(frozen=True)
class Shard:
    """Four generated images: one has no mask, one has no label."""

    description: DatasetDescription
    items: list[Item]
    images: pa.Table
    activations: pa.Table
    predictor: ActivationPredictor
    infer_summary: dict[str, Any]


@pytest.fixture(scope="session")
def description() -> DatasetDescription:
    return DatasetDescription(
        name="generated",
        class_names=("background", *(c.name for c in CLASSES)),
        category_ids=(0, *(c.category_id for c in CLASSES)),
        palette=voc_palette(len(CLASSES) + 1),
    )


@pytest.fixture(scope="session")
def items(tmp_path_factory: pytest.TempPathFactory) -> list[Item]:
    directory = tmp_path_factory.mktemp("images")
    return [make_item(directory, index) for index in range(4)]


def make_item(directory: Path, index: int) -> Item:
    picture, objects = draw_scene(np.random.default_rng((7, index)), 0)
    mask = np.zeros((picture.height, picture.width), np.uint8)
    for object_class, region, _ in objects:
        mask[region] = 1 + CLASSES.index(object_class)
    mask[:2] = 255
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG" if index == LAST else "JPEG")
    path = directory / f"picture_{index}.jpg"
    path.write_bytes(buffer.getvalue())
    present = {1 + CLASSES.index(c) for c, _, _ in objects}
    return Item(
        image_id=path.stem,
        image_path=str(path),
        image_labels=() if index == WITHOUT_LABEL else tuple(sorted(present)),
        read_mask=None if index == WITHOUT_MASK else partial(give_mask, mask),
    )


@pytest.fixture(scope="session")
def predictor() -> ActivationPredictor:
    torch.manual_seed(0)
    networks = {
        name: ActivationNetwork("tiny_resnet", 8, len(CLASSES)) for name in ("cam", "slams")
    }
    return ActivationPredictor(
        dict(networks), scales=(0.75, 1.0), flip=True, device=torch.device("cpu")
    )


@pytest.fixture(scope="session")
def shard(
    description: DatasetDescription, items: list[Item], predictor: ActivationPredictor
) -> Shard:
    images, _ = PrepareMapper(description, "fail")({}, items)
    activations, summary = InferMapper(predictor, len(description.class_names))(
        {"images": images}, None
    )
    return Shard(description, items, images, activations, predictor, summary)
