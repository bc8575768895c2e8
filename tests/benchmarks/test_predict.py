"""The bare loop predicts what Ray's workers do, and memory is compared with the fewest images."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from slams_ray import storage
from slams_ray.benchmarks.harness import shards
from slams_ray.benchmarks.harness.measure import growth_rows
from slams_ray.benchmarks.measurements import predict
from slams_ray.config import InferenceConfig


def test_the_bare_loop_writes_the_masks_of_our_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = InferenceConfig(scales=(1.0,), flip=True, precision="float32")
    monkeypatch.setattr(predict, "INFERENCE", exact)
    data = shards.write_shards(shards.data_config(None, 2, None), str(tmp_path), 1, 2)
    model = predict.write_network(data.description, str(tmp_path))
    comparison = predict.predict_comparison(data, model, str(tmp_path))
    expected, _ = comparison.make_work()({"images": storage.read_table(data.paths[0])}, None)
    (tmp_path / "bare").mkdir()
    comparison.plain(data.names, str(tmp_path / "bare"))
    found = storage.read_table(str(tmp_path / "bare" / data.names[0]))
    assert found["image_id"].to_pylist() == expected["image_id"].to_pylist()
    np.testing.assert_allclose(found["confidence"], expected["confidence"], atol=1e-4)
    for ours, theirs in zip(expected["labels"], found["labels"], strict=True):
        own, other = (np.asarray(Image.open(io.BytesIO(v.as_py()))) for v in (ours, theirs))
        assert own.shape == other.shape
        assert (own == other).mean() > 0.99


def test_memory_grows_against_the_fewest_images() -> None:
    flat, grown = growth_rows("work", {32: 100 * 2**20, 128: 105 * 2**20, 512: 200 * 2**20})
    assert flat.what == "peak memory of work, 128 images, 105 MiB"
    assert flat.against == grown.against == "32 images, 100 MiB"
    assert (flat.ratio, flat.met) == (pytest.approx(100 / 105), True)
    assert (grown.ratio, grown.met) == (0.5, False)
