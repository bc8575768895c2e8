"""A trained network as two lines of Python use it."""

import inspect
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import slams_ray
from slams_ray.artifacts import Record, write_record
from slams_ray.data.transforms import normalise, pyramid
from slams_ray.errors import ArtifactError, ConfigError, DataError
from slams_ray.model.model import load_model
from slams_ray.model.source import SETTINGS
from slams_ray.networks.checkpoint import load_network
from slams_ray.stages import predict

WriteCheckpoint = Callable[..., Path]


def test_labels_and_confidence_are_those_of_a_naive_mean_over_scales(
    write_checkpoint: WriteCheckpoint, photographs: Path
) -> None:
    path = write_checkpoint()
    found = slams_ray.load(path).predict(photographs / "small.jpg")
    network = load_network(path.read_bytes(), str(path), "segmentation_network")
    image = np.array(Image.open(photographs / "small.jpg"))
    probabilities = []
    for scaled in pyramid(normalise(torch.from_numpy(image)[None]), (0.5, 1.0), flip=False):
        for mirrored in (False, True):
            with torch.no_grad():
                logits = network(scaled.flip(-1) if mirrored else scaled)
            full = torch.nn.functional.interpolate(logits, image.shape[:2], mode="bilinear")[0]
            probability = full.softmax(0)
            probabilities.append(probability.flip(-1) if mirrored else probability)
    mean = torch.stack(probabilities).mean(0).numpy()
    assert found.labels.dtype == np.uint8
    assert found.confidence.dtype == np.float32
    assert len(np.unique(found.labels)) > 1
    np.testing.assert_allclose(found.confidence, mean.max(0), atol=1e-5)
    assert (found.labels == mean.argmax(0)).mean() > 0.99
    assert found.class_names == ("background", "cat", "dog")


@pytest.mark.parametrize("max_side_px", [None, 48])
@pytest.mark.parametrize("name", ["large", "small", "turned"])
def test_a_path_bytes_a_pillow_image_and_an_array_give_the_same_labels(
    write_checkpoint: WriteCheckpoint, photographs: Path, name: str, max_side_px: int | None
) -> None:
    model = slams_ray.load(write_checkpoint(max_side_px))
    path = photographs / f"{name}.jpg"
    first = model.predict(str(path))
    inputs: list[Any] = [path, path.read_bytes(), Image.open(path)]
    if name != "turned":
        inputs.append(np.asarray(Image.open(path)))
    found = model.predict(inputs)
    assert isinstance(found, list)
    assert first.labels.shape == first.image.shape[:2] == first.confidence.shape
    for other in found:
        np.testing.assert_array_equal(other.labels, first.labels)
        np.testing.assert_array_equal(other.confidence, first.confidence)


@pytest.mark.parametrize("max_side_px", [None, 48])
def test_the_job_writes_the_same_masks(
    write_checkpoint: WriteCheckpoint, photographs: Path, tmp_path: Path, max_side_px: int | None
) -> None:
    path = write_checkpoint(max_side_px)
    assert predict.run(str(path), str(photographs), str(tmp_path / "masks")) == 3
    model = slams_ray.load(path)
    for name in ("large", "small", "turned"):
        mask = np.asarray(Image.open(tmp_path / "masks" / f"{name}.png"))
        np.testing.assert_array_equal(model.predict(photographs / f"{name}.jpg").labels, mask)


def test_a_result_saves_itself_and_draws_itself(
    write_checkpoint: WriteCheckpoint, photographs: Path, tmp_path: Path
) -> None:
    found = slams_ray.load(write_checkpoint()).predict(photographs / "turned.jpg")
    found.save(tmp_path / "mask.png")
    saved = Image.open(tmp_path / "mask.png")
    assert (saved.mode, saved.size) == ("P", (100, 64))
    np.testing.assert_array_equal(np.asarray(saved), found.labels)
    with pytest.raises(ConfigError, match=r"mask\.jpg', expected a name that ends in \.png"):
        found.save(tmp_path / "mask.jpg")
    overlay = found.overlay()
    assert (overlay.shape, overlay.dtype) == ((64, 100, 3), np.uint8)
    np.testing.assert_array_equal(overlay[found.labels == 0], found.image[found.labels == 0])
    assert (overlay[found.labels > 0] != found.image[found.labels > 0]).any()


def test_settings_can_be_changed_and_unknown_ones_are_named(
    write_checkpoint: WriteCheckpoint, photographs: Path
) -> None:
    path = write_checkpoint()
    changed = slams_ray.load(path, scales=(1.0,), flip=False)
    assert (changed.predictor.scales, changed.predictor.flip) == ((1.0,), False)
    with pytest.raises(ConfigError, match=r"unknown settings scale: expected some of scales"):
        load_model(path, scale=(1.0,))


def test_load_takes_the_options_of_the_function_behind_it() -> None:
    options = inspect.signature(slams_ray.load).parameters
    behind = inspect.signature(load_model).parameters
    assert set(options) == {name for name in behind if name != "changes"} | set(SETTINGS)
    for name in options.keys() & behind.keys():
        assert options[name].default == behind[name].default, name
    assert all(options[name].default is None for name in SETTINGS)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((4, 4), np.uint8), r"array of uint8 and shape \(4, 4\), expected"),
        (np.zeros((4, 4, 3), np.float32), r"array of float32 and shape \(4, 4, 3\)"),
        (b"not an image", "truncated or not an image"),
        (3, "the image is int, expected a path"),
        ("missing.jpg", "missing.jpg is missing"),
    ],
)
def test_what_is_no_image_is_described(
    write_checkpoint: WriteCheckpoint, image: Any, message: str
) -> None:
    model = slams_ray.load(write_checkpoint())
    with pytest.raises(DataError, match=message):
        model.predict(image)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "float16"}, "^precision is 'float16', expected one of auto, float32, bf"),
        ({"scales": 1.0}, r"^scales is 1\.0, expected a tuple of positive"),
        ({"scales": ("a",)}, r"^scales is \('a',\), expected a tuple of positive"),
        ({"scales": ()}, r"^scales is \(\), expected a tuple of positive"),
        ({"device": "cuda"}, "device is 'cuda', but torch finds no GPU"),
        ({"device": "gpu"}, "device is 'gpu', expected a torch device: cpu, cuda"),
    ],
)
def test_options_that_do_not_exist_are_described(
    write_checkpoint: WriteCheckpoint, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        slams_ray.load(write_checkpoint(), **options)


def test_a_pillow_image_that_cannot_be_read_is_a_data_error(
    write_checkpoint: WriteCheckpoint, photographs: Path, tmp_path: Path
) -> None:
    model = slams_ray.load(write_checkpoint())
    data = (photographs / "large.jpg").read_bytes()
    (tmp_path / "half.jpg").write_bytes(data[: len(data) // 2])
    with Image.open(tmp_path / "half.jpg") as image, pytest.raises(DataError, match="truncated"):
        model.predict(image)
    closed = Image.open(photographs / "large.jpg")
    closed.close()
    with pytest.raises(DataError, match="cannot be read"):
        model.predict(closed)


def test_a_workspace_without_its_checkpoint_says_what_to_do(
    write_checkpoint: WriteCheckpoint, tmp_path: Path
) -> None:
    trained = tmp_path / "train_segmentation" / "0"
    stages = [{"stage": "train_segmentation", "output": str(trained)}]
    (tmp_path / "summary.json").write_text(json.dumps({"stages": stages}))
    with pytest.raises(ArtifactError, match=rf"model\.pt is missing: remove {trained} and run"):
        slams_ray.load(tmp_path)


def test_a_workspace_that_was_moved_still_loads(
    write_checkpoint: WriteCheckpoint, tmp_path: Path
) -> None:
    workspace = tmp_path / "moved"
    output = workspace / "train_segmentation" / "0123"
    output.mkdir(parents=True)
    write_checkpoint().rename(output / "model.pt")
    record = Record(
        stage="evaluate",
        fingerprint="4567",
        config={"scales": [1.0], "flip": False, "precision": "float32", "max_side_px": 32},
        inputs={},
        seconds=1,
        num_rows=1,
    )
    write_record(str(workspace / "evaluate" / "4567"), record)
    stages = [
        {"stage": "train_segmentation", "output": "/gone/train_segmentation/0123"},
        {"stage": "evaluate", "output": "/gone/evaluate/4567"},
    ]
    (workspace / "summary.json").write_text(json.dumps({"stages": stages}))
    model = slams_ray.load(workspace)
    assert (model.predictor.scales, model.max_side_px) == ((1.0,), 32)


def test_predicting_from_a_path_loads_neither_ray_nor_mlflow(
    write_checkpoint: WriteCheckpoint, photographs: Path
) -> None:
    code = (
        "import sys, slams_ray\n"
        f"found = slams_ray.load({str(write_checkpoint())!r}).predict("
        f"{str(photographs / 'small.jpg')!r})\n"
        "print(found.labels.shape, sorted({'ray', 'mlflow', 'matplotlib'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "(30, 40) []"
