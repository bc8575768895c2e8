"""What a prediction may overwrite, and which shards of earlier runs it believes."""

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
from PIL import Image

import slams_ray
from slams_ray import storage
from slams_ray.errors import ConfigError, DataError
from slams_ray.model.shard_work import PredictMapper
from slams_ray.runtime.finished_shards import KEY
from slams_ray.stages import predict
from slams_ray.stages.predict_inputs import find_photographs
from slams_ray.stages.predict_output import remove_file_shards, remove_unfinished
from slams_ray.stages.predict_settings import PredictSettings

ON_CLUSTER = PredictSettings(use_cluster=True, images_per_shard=2)


def content(directory: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def write_shard(output: Path, name: str, fingerprint: str, *image_ids: str) -> Path:
    table = pa.table({"image_id": list(image_ids)})
    note = {KEY: json.dumps({"fingerprint": fingerprint})}
    path = output / "predictions" / name
    storage.write_table(str(path), table.replace_schema_metadata(note))
    return path


@pytest.mark.parametrize("output", ["", "/", "/deep/.."])
def test_masks_never_replace_listed_photographs(
    photographs: Path, checkpoint: Path, output: str
) -> None:
    (photographs / "list.txt").write_text("a.png\ne.png\n")
    before = content(photographs)
    with pytest.raises(ConfigError, match=r"[ae]\.png is one of the photographs.*another --output"):
        predict.run(str(checkpoint), str(photographs / "list.txt"), f"{photographs}{output}")
    assert content(photographs) == before


def test_an_overlay_never_replaces_a_photograph(photographs: Path, checkpoint: Path) -> None:
    for name in ("x.jpg", "x_overlay.jpg"):
        Image.new("RGB", (50, 40)).save(photographs / name)
    (photographs / "list.txt").write_text("x.jpg\nx_overlay.jpg\n")
    with pytest.raises(ConfigError, match=r"x_overlay\.jpg is one of the photographs"):
        predict.run(str(checkpoint), str(photographs / "list.txt"), str(photographs))


def test_photographs_within_the_output_are_predicted_and_never_replaced(
    photographs: Path, checkpoint: Path
) -> None:
    inside = photographs / "deep"
    before = content(photographs)
    arguments = str(checkpoint), str(photographs), str(inside)
    assert predict.run(*arguments) == 4
    after = content(photographs)
    assert before.items() <= after.items()
    assert (inside / "deep" / "b.png").exists()
    # Masks of the first run are no photographs of the second, and are written again.
    (inside / "a.png").write_bytes(b"damaged")
    assert predict.run(*arguments) == 4
    assert content(photographs) == after


def test_a_photograph_within_the_output_with_the_name_of_a_mask_ends_the_run(
    photographs: Path, checkpoint: Path
) -> None:
    Image.new("RGB", (50, 40)).save(photographs / "deep" / "a.png")
    before = content(photographs)
    with pytest.raises(ConfigError, match=r"deep/a\.png is one of the photographs"):
        predict.run(str(checkpoint), str(photographs), str(photographs / "deep"))
    assert content(photographs) == before


@pytest.mark.parametrize("name", ["a.png", "deep/b_overlay.jpg"])
def test_a_file_that_no_run_has_written_is_not_replaced(
    photographs: Path, checkpoint: Path, tmp_path: Path, name: str
) -> None:
    """Such as a mask drawn by hand."""
    output = tmp_path / "masks"
    storage.write_bytes(str(output / name), b"drawn by hand")
    with pytest.raises(ConfigError, match=rf"{name} would be overwritten.*or remove the file"):
        predict.run(str(checkpoint), str(photographs), str(output))
    assert content(output) == {str(output / name): b"drawn by hand"}


def test_another_network_and_more_photographs_may_write_into_the_same_output(
    photographs: Path, checkpoint: Path, other_checkpoint: Path, tmp_path: Path
) -> None:
    output = tmp_path / "masks"
    assert predict.run(str(checkpoint), str(photographs), str(output)) == 4
    Image.new("RGB", (50, 40)).save(photographs / "new.jpg")
    assert predict.run(str(other_checkpoint), str(photographs), str(output)) == 5
    expected = slams_ray.load(other_checkpoint).predict(photographs / "a.png").labels
    np.testing.assert_array_equal(np.asarray(Image.open(output / "a.png")), expected)
    assert predict.run(str(checkpoint), str(photographs), str(output)) == 5


def test_tables_where_shards_are_written_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    images = tmp_path / "predictions"
    images.mkdir()
    pq.write_table(pa.table({"image_id": ["a"], "image": [b"-"]}), images / "x.parquet")
    before = content(tmp_path)
    with pytest.raises(ConfigError, match="shards in predictions would overwrite the photographs"):
        predict.run(str(checkpoint), str(images), str(tmp_path))
    assert content(tmp_path) == before


def test_only_current_shards_whose_masks_exist_are_believed(tmp_path: Path) -> None:
    for name in ("a.png", "a_overlay.jpg", "b.png"):
        storage.write_bytes(str(tmp_path / name), b"-")
    current = {"0.parquet": "files-x", "1.parquet": "files-x", "2.parquet": "files-x"}
    finished = write_shard(tmp_path, "0.parquet", "files-x", "a")
    write_shard(tmp_path, "1.parquet", "files-x", "a", "b")
    write_shard(tmp_path, "2.parquet", "files-y", "a")
    write_shard(tmp_path, "000003.parquet", "files-x", "a")
    of_the_user = tmp_path / "predictions" / "mine.parquet"
    pq.write_table(pa.table({"image_id": ["a"]}), of_the_user)
    remove_unfinished(str(tmp_path), "files", current)
    assert sorted(finished.parent.iterdir()) == [finished, of_the_user]


def test_masks_in_shards_need_no_files_and_outlive_a_run_without_shards(tmp_path: Path) -> None:
    tables = write_shard(tmp_path, "0.parquet", "parquet-x", "a")
    remove_unfinished(str(tmp_path), "parquet", {"0.parquet": "parquet-x"})
    remade = write_shard(tmp_path, "1.parquet", "files-x", "b", "c")
    others = write_shard(tmp_path, "2.parquet", "files-x", "d")
    remove_file_shards(str(tmp_path), ["c"])
    assert sorted(tables.parent.iterdir()) == [tables, others]
    assert not remade.exists()


def test_tables_with_masks_of_other_photographs_stay_and_are_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Each table of photographs has a table of masks, which may be the only copy."""
    first = write_shard(tmp_path, "monday.parquet", "parquet-x", "a")
    files = write_shard(tmp_path, "sunday.parquet", "files-x", "b")
    remove_unfinished(str(tmp_path), "parquet", {"tuesday.parquet": "parquet-x"})
    assert sorted(first.parent.iterdir()) == [first, files]
    assert "also has 2 tables of other photographs, such as monday.parquet" in caplog.text


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([1, 2], r"column image_id has the type int64, expected string"),
        (["x", "x"], r"2 images are called 'x'"),
        (["x", None], r"1 rows have no image_id"),
    ],
)
def test_unusable_ids_of_a_table_are_named_before_any_work(
    checkpoint: Path, tmp_path: Path, ids: list[object], message: str
) -> None:
    table = pa.table({"image_id": ids, "image": [b"-", b"-"]})
    path, output = tmp_path / "in.parquet", tmp_path / "masks"
    pq.write_table(table, path)
    with pytest.raises(DataError, match=rf"in\.parquet: .*{message}"):
        predict.run(str(checkpoint), str(path), str(output))
    assert not output.exists()
    with pytest.raises(DataError, match=message):
        PredictMapper(slams_ray.load(checkpoint), str(output), "skip")({"images": table}, None)


def test_an_id_in_two_tables_is_named(checkpoint: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for name in ("1.parquet", "2.parquet"):
        pq.write_table(pa.table({"image_id": ["x"], "image": [b"-"]}), images / name)
    with pytest.raises(DataError, match=r"2 images are called 'x'"):
        predict.run(str(checkpoint), str(images), str(tmp_path / "masks"))


def test_a_row_without_image_is_bad_and_an_image_of_another_type_is_named(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (50, 40)).save("a.png")
    mapper = PredictMapper(slams_ray.load(checkpoint), None, "skip")
    table = pa.table({"image_id": ["a.png"], "image": pa.array([None], pa.binary())})
    _, summary = mapper({"images": table}, None)
    assert summary["num_rows"] == 0, "the file of that name must not be read"
    assert "a.png (0 bytes) is truncated or not an image" in summary["bad"][0][1]
    with pytest.raises(DataError, match="column image has the type string, expected binary"):
        mapper({"images": pa.table({"image_id": ["a"], "image": ["a.png"]})}, None)


def test_one_photograph_is_predicted(photographs: Path, checkpoint: Path, tmp_path: Path) -> None:
    assert predict.run(str(checkpoint), str(photographs / "a.png"), str(tmp_path / "masks")) == 1
    expected = slams_ray.load(checkpoint).predict(photographs / "a.png").labels
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "masks" / "a.png")), expected)
    with pytest.raises(ConfigError, match="is one of the photographs"):
        predict.run(str(checkpoint), str(photographs / "a.png"), str(photographs))


def test_a_file_of_another_kind_is_refused_with_what_is_expected(tmp_path: Path) -> None:
    (tmp_path / "a.tif").touch()
    with pytest.raises(DataError, match=r"a\.tif is a file, but --images expects a directory"):
        find_photographs(str(tmp_path / "a.tif"), "masks")
    with pytest.raises(DataError, match=r"gone holds no image, or is missing"):
        find_photographs(str(tmp_path / "gone"), "masks")


def test_a_photograph_that_is_too_large_names_the_option_that_takes_it(
    checkpoint: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "in").mkdir()
    Image.new("1", (8100, 8000)).save(tmp_path / "in" / "large.png")
    assert predict.run(str(checkpoint), str(tmp_path / "in"), str(tmp_path / "masks")) == 0
    assert "the limit is 64000000 pixels (max_image_pixels raises it" in caplog.text
    assert "data." not in caplog.text
    arguments = (str(checkpoint), str(tmp_path / "in"), str(tmp_path / "masks"))
    how = PredictSettings(max_image_pixels=64_800_000, changes={"max_side_px": 64})
    assert predict.run(*arguments, how) == 1
    with Image.open(tmp_path / "masks" / "large.png") as mask:
        assert mask.size == (8100, 8000)


def test_a_turned_photograph_above_the_usual_limit_is_decoded(checkpoint: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    Image.new("RGB", (8100, 8000)).save(buffer, format="JPEG", exif=exif)
    model = slams_ray.load(checkpoint, max_image_pixels=64_800_000, max_side_px=100_000)
    decoded = model.decode(buffer.getvalue(), "turned.jpg")
    assert decoded.upright.shape == decoded.stored.shape == (8100, 8000, 3)


@pytest.mark.ray
def test_a_cluster_believes_no_masks_of_another_network_and_none_that_are_gone(
    ray_cluster: None,
    photographs: Path,
    checkpoint: Path,
    other_checkpoint: Path,
    tmp_path: Path,
) -> None:
    output = tmp_path / "masks"
    arguments = str(photographs), str(output)
    assert predict.run(str(checkpoint), *arguments, ON_CLUSTER) == 4
    assert (output / "written" / "model" / "model.pt").read_bytes() == checkpoint.read_bytes()
    assert not (output / "model").exists(), "there a user may have a network"
    masks = {path: path.read_bytes() for path in output.rglob("*.png")}
    assert predict.run(str(other_checkpoint), *arguments) == 4
    assert {path: path.read_bytes() for path in masks} != masks
    assert predict.run(str(checkpoint), *arguments, ON_CLUSTER) == 4
    assert {path: path.read_bytes() for path in masks} == masks
    for path in masks:
        path.unlink()
    assert predict.run(str(checkpoint), *arguments, ON_CLUSTER) == 4
    assert {path: path.read_bytes() for path in masks} == masks


@pytest.mark.ray
def test_the_tables_of_a_cluster_are_those_of_the_last_run(
    ray_cluster: None, photographs: Path, checkpoint: Path, tmp_path: Path
) -> None:
    how = PredictSettings(output_format="parquet", images_per_shard=1)
    arguments = str(checkpoint), str(photographs), str(tmp_path / "out"), how
    assert predict.run(*arguments) == 4
    for name in ("d.png", "e.png"):
        (photographs / name).unlink()
    assert predict.run(*arguments) == 3
    found = pyarrow.dataset.dataset(tmp_path / "out" / "predictions").to_table()
    assert found["image_id"].to_pylist() == ["a", "deep/b", "deep/c"]
