"""Prediction sees what evaluation saw: the same pixels come out."""

import io
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from slams_ray.artifacts import Record, write_record
from slams_ray.config import DataConfig, InferenceConfig, PredictionCrfConfig
from slams_ray.data.image import decode_mask, resize
from slams_ray.data.shard_work import PrepareMapper
from slams_ray.data.source import VAL, load_split
from slams_ray.errors import ArtifactError
from slams_ray.model.checkpoint import find_checkpoint
from slams_ray.model.predictor import make_predictor
from slams_ray.model.source import find_model
from slams_ray.networks.checkpoint import dump_network
from slams_ray.networks.segmentation_network import SegmentationNetwork
from slams_ray.segmentation.shard_work import EvaluateMapper
from slams_ray.stages import evaluate, predict

if TYPE_CHECKING:
    from tests.conftest import Finished

ARCHITECTURE = {
    "backbone_name": "tiny_resnet",
    "output_stride": 8,
    "num_classes": 2,
    "head": "deeplabv2",
}
NAMES = ("background", "cat", "dog")
MAX_SIDE_PX = 48
INFERENCE = InferenceConfig(scales=(0.5, 1.0), flip=True, precision="float32")


def checkpoint(inference: dict[str, Any] | None) -> bytes:
    torch.manual_seed(0)
    network = SegmentationNetwork(**ARCHITECTURE)
    with torch.no_grad():
        # At random weights one class would win everywhere.
        network.head.branches[0].weight.normal_(std=1.0)
    return dump_network(network, ARCHITECTURE, NAMES, inference)


def write_photographs(root: Path) -> None:
    """A folder data set: a large photograph, a small one, and one turned by its EXIF tag."""
    (root / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    exif = Image.Exif()
    exif[0x0112] = 6
    for name, size, options in (
        ("large", (90, 120), {}),
        ("small", (40, 30), {}),
        ("turned", (64, 100), {"exif": exif}),
    ):
        coarse = rng.integers(0, 256, (6, 8, 3), np.uint8)
        smooth = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)
        smooth.save(root / "images" / f"{name}.jpg", quality=95, **options)
    rows = [
        "large.jpg,cat,val",
        "small.jpg,dog,val",
        "turned.jpg,cat;dog,val",
        "large.jpg,cat,train",
    ]
    (root / "labels.csv").write_text("\n".join(["image,labels,split", *rows]))


def scored_pixels(root: Path, model: Path) -> dict[str, np.ndarray]:
    """Image id -> prediction as evaluation makes and stores it."""
    config = DataConfig(format="folder", root=str(root), max_side_px=MAX_SIDE_PX)
    split = load_split(config, str(root), VAL)
    mapper = PrepareMapper(split.description, "fail", upright=True, max_side_px=MAX_SIDE_PX)
    images, _ = mapper({}, split.items)
    predictor = make_predictor(str(model), INFERENCE, NAMES, "cpu")
    scored, _ = EvaluateMapper(split.description, predictor)({"images": images}, None)
    return {
        row["image_id"]: decode_mask(row["prediction"], row["image_id"])
        for row in scored.to_pylist()
    }


def test_photographs_of_a_folder_get_the_very_pixels_that_were_scored(tmp_path: Path) -> None:
    write_photographs(tmp_path / "photos")
    model = tmp_path / "model.pt"
    model.write_bytes(checkpoint(asdict(INFERENCE) | {"max_side_px": MAX_SIDE_PX}))
    expected = scored_pixels(tmp_path / "photos", model)
    predict.run(str(model), str(tmp_path / "photos" / "images"), str(tmp_path / "masks"))
    for name, size in (("large", (90, 120)), ("small", (40, 30)), ("turned", (100, 64))):
        mask = np.asarray(Image.open(tmp_path / "masks" / f"{name}.png"))
        assert mask.shape == size[::-1]
        assert len(np.unique(expected[name])) > 1, "a constant mask would prove nothing"
        assert np.array_equal(mask, resize(expected[name], size, Image.Resampling.NEAREST)), name


def test_masks_can_be_refined_by_the_crf_of_test_time(tmp_path: Path) -> None:
    write_photographs(tmp_path)
    model = tmp_path / "model.pt"
    model.write_bytes(checkpoint(asdict(INFERENCE) | {"max_side_px": None}))
    arguments = (str(model), str(tmp_path / "images"))
    predict.run(*arguments, str(tmp_path / "plain"))
    predict.run(*arguments, str(tmp_path / "refined"), crf=True)
    crf = PredictionCrfConfig(iterations=10)
    predictor = make_predictor(str(model), INFERENCE, NAMES, "cpu", crf)
    image = np.asarray(Image.open(tmp_path / "images" / "small.jpg"))
    plain, refined = (
        np.asarray(Image.open(tmp_path / kind / "small.png")) for kind in ("plain", "refined")
    )
    assert np.array_equal(refined, predictor.predict(image))
    assert not np.array_equal(refined, plain)


@pytest.mark.ray
def test_images_of_the_built_in_set_get_the_very_pixels_that_were_scored(
    finished: "Finished", tmp_path: Path
) -> None:
    (images,) = (finished.workspace / "synthetic").glob("*/val")
    model = finished.result.results["train_segmentation"].path("model.pt")
    predict.run(model, str(images), str(tmp_path))
    predictions = finished.result.results["evaluate"].path(evaluate.PREDICTIONS)
    num_compared = 0
    for path in Path(predictions).iterdir():
        for row in pq.read_table(path).to_pylist():
            mask = np.asarray(Image.open(tmp_path / f"{row['image_id']}.png"))
            assert np.array_equal(mask, np.asarray(Image.open(io.BytesIO(row["prediction"]))))
            num_compared += 1
    assert num_compared == 8


def test_a_workspace_predicts_as_its_evaluation_scored(tmp_path: Path) -> None:
    """The evaluation may have been repeated at other scales than the checkpoint says."""
    scored_with = asdict(INFERENCE) | {"max_side_px": 32}
    network, scores = str(tmp_path / "train_segmentation/a"), str(tmp_path / "evaluate/b")
    Path(network).mkdir(parents=True)
    record = Record(
        stage="evaluate",
        fingerprint="b",
        config=scored_with | {"split": "val"},
        inputs={},
        seconds=1,
        num_rows=1,
    )
    write_record(scores, record)
    stages = [
        {"stage": "train_segmentation", "output": network},
        {"stage": "evaluate", "output": scores},
    ]
    (tmp_path / "summary.json").write_text(json.dumps({"stages": stages}))
    model = find_model(str(tmp_path))
    assert model.path == f"{network}/model.pt"
    assert model.scored_with == json.loads(json.dumps(scored_with))


@pytest.mark.parametrize(
    ("scored", "asked", "expected"),
    [
        ("bfloat16", None, "auto"),
        ("bfloat16", "bfloat16", "bfloat16"),
        ("float32", None, "float32"),
    ],
)
def test_only_who_asks_for_bfloat16_gets_it_where_a_device_must_emulate_it(
    tmp_path: Path, scored: str, asked: str | None, expected: str
) -> None:
    model = tmp_path / "model.pt"
    model.write_bytes(checkpoint(None))
    settings = asdict(INFERENCE) | {"max_side_px": 32, "precision": scored}
    (tmp_path / "inference.json").write_text(json.dumps(settings))
    assert find_checkpoint(str(model), {"precision": asked}).settings["precision"] == expected


def test_a_checkpoint_without_settings_asks_for_all_of_them(tmp_path: Path) -> None:
    write_photographs(tmp_path)
    model = tmp_path / "model.pt"
    model.write_bytes(checkpoint(None))
    arguments = (str(model), str(tmp_path / "images"), str(tmp_path / "masks"))
    with pytest.raises(ArtifactError, match=r"model\.pt has no inference settings: .*--scales"):
        predict.run(*arguments, scales=(1.0,))
    changes = {"scales": (1.0,), "flip": False, "precision": "float32", "max_side_px": 32}
    assert predict.run(*arguments, **changes) == 3
