"""The alternatives to our inference do the same work, and a row comes of every comparison."""

from pathlib import Path

import numpy as np
import pytest

from slams_ray import storage
from slams_ray.benchmarks.harness import loops, shards, workers
from slams_ray.benchmarks.measurements import inference
from slams_ray.benchmarks.measurements.inference import Inference
from slams_ray.config import ActivationInferenceConfig
from slams_ray.data.stored_maps import unpack_maps
from slams_ray.errors import ConfigError


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Inference:
    directory = str(tmp_path_factory.mktemp("inference"))
    data = shards.write_shards(shards.data_config(None, 4, None), directory, 2, 2)
    models = inference.random_models(data, directory)
    # In bfloat16 maps of random networks differ too much to be compared level by level.
    config = ActivationInferenceConfig(scales=(0.5, 1.0), precision="float32")
    return Inference(shards=data, models=models, config=config, directory=directory)


def test_the_bare_loop_writes_what_our_mapper_writes(work: Inference, tmp_path: Path) -> None:
    path = work.shards.paths[0]
    expected, _ = work.make_work()({"images": storage.read_table(path)}, None)
    loops.bare_shard(path, str(tmp_path), work.networks(work.dtype), work.config.scales)
    found = storage.read_table(str(tmp_path / work.shards.names[0]))
    assert found.select(["image_id", "image_labels"]).equals(
        expected.select(["image_id", "image_labels"]).cast(
            found.select(["image_id", "image_labels"]).schema
        )
    )
    for method in ("cam", "slams"):
        for ours, theirs in zip(expected[method], found[method], strict=True):
            own, other = (np.frombuffer(v.as_py(), np.uint8).astype(int) for v in (ours, theirs))
            assert own.max() > 200
            assert np.abs(own - other).max() <= 1


def test_the_field_writes_the_maps_that_ours_are_a_small_copy_of(
    work: Inference, tmp_path: Path
) -> None:
    table = storage.read_table(work.shards.paths[0])
    table, image = work.make_work()({"images": table}, None)[0], table.to_pylist()[0]
    network = work.networks(None)["cam"]
    stem = tmp_path / "first"
    loops.field_image(image["image"], image["image_labels"], stem, network, work.config.scales)
    small, full = (np.load(f"{stem}.{name}.npy") for name in ("cam", "high_res"))
    labels, size = image["image_labels"], (image["height"], image["width"])
    assert full.shape == (len(labels), *size)
    assert full.dtype == np.float32
    stored = unpack_maps(table["cam"][0].as_py(), labels, *size)
    # IRN resizes before it mirrors, as we do.
    assert np.abs(stored / 255 - small).max() <= 2 / 255


def test_rows_of_time_bytes_and_miou(work: Inference) -> None:
    rows = inference.loop_rows(work, 1)
    assert [row.goal for row in rows] == [0.95, 0.95, 2.0]
    stored, miou = inference.storage_rows(work, trained=True)
    # float32 maps at stride 4 and 1 are 68 times the uint8 ones at stride 4, before compression.
    assert stored.ratio > 50
    assert 0.95 < miou.ratio <= 1
    assert miou.goal == 0.999
    assert all(np.isfinite(row.ratio) and row.ratio > 0 for row in rows)


def test_the_warm_rate_starts_when_the_last_worker_has_finished_its_first() -> None:
    # The second worker's first shard is there at 10: work before that does not count.
    early = [1.0, 2.0, 3.0, 11.0, 12.0, 13.0]
    assert workers.warm_rate([early, [10.0, 12.0, 14.0]], 2) == pytest.approx(1.0 + 0.5)


def test_too_few_shards_are_refused() -> None:
    with pytest.raises(ConfigError, match="too few to measure 2 workers"):
        workers.warm_rate([[1.0, 2.0], [3.0]], 2)


@pytest.mark.ray
@pytest.mark.long
def test_ray_and_plain_processes_write_every_shard(ray_cluster: None, work: Inference) -> None:
    comparison = inference.inference_comparison(work)
    assert workers.ray_rate(comparison, 1, "ray") > 0
    assert workers.plain_rate(comparison, 1, "plain") > 0
    for label in ("ray", "plain"):
        directory = Path(comparison.directory, label)
        assert sorted(p.name for p in directory.iterdir()) == list(work.shards.names)
