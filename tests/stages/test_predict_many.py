"""Many photographs: which are found, what a shard of them becomes, and a cluster that continues."""

import io
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

import slams_ray
from slams_ray.errors import ArtifactError, ConfigError, DataError
from slams_ray.model.model import Model, load_model
from slams_ray.model.shard_work import PredictMapper, Source
from slams_ray.stages import predict
from slams_ray.stages.predict_inputs import check_output, find_photographs
from slams_ray.stages.predict_output import note_written
from slams_ray.stages.predict_settings import PredictSettings


def test_a_directory_is_searched_in_depth_without_the_masks_in_it(photographs: Path) -> None:
    (photographs / "masks").mkdir()
    (photographs / "masks" / "a.png").touch()
    note_written(str(photographs / "masks"), ["a"])
    found = find_photographs(str(photographs), str(photographs / "masks"))
    assert [s.image_id for s in found.sources] == ["a", "d", "deep/b", "deep/c", "e"]
    assert all(Path(s.path).is_absolute() for s in found.sources)
    assert len(set(found.states.values())) == 5
    with pytest.raises(ConfigError, match="masks would overwrite them"):
        find_photographs(str(photographs), f"{photographs}/")


def test_a_list_names_paths_relative_to_itself_or_absolute(photographs: Path) -> None:
    names = photographs / "list.txt"
    names.write_text(f"deep/b.png\n\n{photographs}/a.png\ns3://bucket/c.jpg\n")
    found = find_photographs(str(names), "masks")
    assert [(s.image_id, s.path) for s in found.sources] == [
        ("b", f"{photographs}/deep/b.png"),
        ("a", f"{photographs}/a.png"),
        ("c", "s3://bucket/c.jpg"),
    ]
    names.write_text("a.png\ndeep/a.jpg\n")
    with pytest.raises(DataError, match="2 images are called 'a'"):
        find_photographs(str(names), "masks")
    with pytest.raises(DataError, match=r"gone\.parquet is missing"):
        find_photographs(str(photographs / "gone.parquet"), "masks")


def test_a_list_that_cannot_be_read_is_named_and_a_byte_order_mark_is_no_name(
    photographs: Path,
) -> None:
    names = photographs / "list.txt"
    with pytest.raises(DataError, match=r"list\.txt is missing: check the path of the list"):
        find_photographs(str(names), "masks")
    names.write_bytes("é.png\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"list\.txt is not UTF-8 text .*save it as UTF-8"):
        find_photographs(str(names), "masks")
    names.write_bytes("a.png\n".encode("utf-8-sig"))
    (source,) = find_photographs(str(names), "masks").sources
    assert (source.image_id, source.path) == ("a", f"{photographs}/a.png")


def test_replaced_files_of_a_list_and_a_replaced_table_get_another_state(
    photographs: Path, tmp_path: Path
) -> None:
    names, table = photographs / "list.txt", tmp_path / "x.parquet"
    names.write_text(f"a.png\nfile://{photographs}/e.png\ngone.png\ns3://bucket/c.jpg\n")
    table.write_bytes(b"table")
    before = find_photographs(str(names), "masks").states
    assert before == find_photographs(str(names), "masks").states
    assert list(before) == [f"{photographs}/a.png", f"file://{photographs}/e.png"]
    in_directory = find_photographs(str(photographs), "masks").states
    assert list(before.values()) == [in_directory[f"{photographs}/{name}.png"] for name in "ae"]
    table_before = find_photographs(str(table), "masks").states
    for path in (photographs / "a.png", table):
        # Of the same size, but written a second later.
        os.utime(path, ns=(0, path.stat().st_mtime_ns + 10**9))
    after = find_photographs(str(names), "masks").states
    assert [before[path] != after[path] for path in before] == [True, False]
    assert find_photographs(str(table), "masks").states["x.parquet"] != table_before["x.parquet"]


@pytest.mark.parametrize(("to_files", "as_on_gpu"), [(True, False), (False, False), (True, True)])
def test_a_shard_has_the_masks_of_the_model_and_names_bad_images(
    checkpoint: Path, photographs: Path, tmp_path: Path, to_files: bool, as_on_gpu: bool
) -> None:
    model = slams_ray.load(checkpoint)
    if as_on_gpu:
        model.predictor.batch_size, model.predictor.ahead = 2, 4
    sources = find_photographs(str(photographs), "masks").sources
    files_in = str(tmp_path / "masks") if to_files else None
    table, summary = PredictMapper(model, files_in, "skip")({}, sources)
    assert summary["num_rows"] == 4
    ((path, reason),) = summary["bad"]
    assert path.endswith("d.png")
    assert "truncated" in reason
    num_empty = 0
    for row in table.to_pylist():
        expected = model.predict(photographs / f"{row['image_id']}.png")
        num_empty += not expected.labels.any()
        mask = tmp_path / "masks" / f"{row['image_id']}.png"
        data = mask.read_bytes() if to_files else row["labels"]
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(data))), expected.labels)
        assert (row["height"], row["width"]) == expected.labels.shape
        assert row["confidence"] == pytest.approx(float(expected.confidence.mean()))
    assert summary["num_empty"] == num_empty == 0
    with torch.no_grad():
        for parameter in model.predictor.network.parameters():
            # Equal scores give background.
            parameter.zero_()
    _, summary = PredictMapper(model, files_in, "skip")({}, sources)
    assert (summary["num_rows"], summary["num_empty"]) == (4, 4)
    with pytest.raises(DataError, match="truncated"):
        PredictMapper(model, None, "fail")({}, sources)


def test_groups_of_a_gpu_give_the_masks_of_single_images(
    checkpoint: Path,
    photographs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    alone, grouped = tmp_path / "alone", tmp_path / "grouped"
    assert predict.run(str(checkpoint), str(photographs), str(alone)) == 4
    sizes: list[int] = []

    def as_on_gpu(*arguments: Any, **settings: Any) -> Model:
        model = load_model(*arguments, **settings)
        model.predictor.batch_size, model.predictor.ahead = 2, 4
        segment = model.predict_decoded

        def counted(images: Any) -> Any:
            sizes.append(len(images))
            return segment(images)

        model.predict_decoded = counted  # type: ignore[method-assign]
        return model

    monkeypatch.setattr(predict, "load_model", as_on_gpu)
    caplog.clear()
    how = PredictSettings(images_per_shard=3)
    assert predict.run(str(checkpoint), str(photographs), str(grouped), how) == 4
    # Groups a, d, b and c, e in batches of two; d is bad.
    assert sizes == [1, 1, 2]
    assert "d.png" in caplog.text
    masks = sorted(alone.rglob("*.png"))
    assert len(masks) == 4
    for mask in masks:
        assert (grouped / mask.relative_to(alone)).read_bytes() == mask.read_bytes()


def test_images_that_crash_a_process_are_read_one_after_another(
    checkpoint: Path, photographs: Path
) -> None:
    """Otherwise the last image that was entered would not be the one that crashed it."""
    model = slams_ray.load(checkpoint)
    model.predictor.batch_size, model.predictor.ahead = 2, 4
    happened: list[str] = []
    segment = model.predict_decoded

    def predict_decoded(images: Any) -> Any:
        happened.append("segmented")
        return segment(images)

    model.predict_decoded = predict_decoded  # type: ignore[method-assign]
    mapper = PredictMapper(model, None, "fail")
    mapper.trace = happened.append
    first, second = (Source(image_id=name, path=str(photographs / f"{name}.png")) for name in "ae")
    mapper({}, [first, second])
    assert happened == [first.path, "segmented", second.path, "segmented"]


def test_a_name_that_leads_out_of_the_output_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    table = pa.table({"image_id": ["../a"], "image": [b"anything"]})
    mapper = PredictMapper(slams_ray.load(checkpoint), str(tmp_path), "fail")
    with pytest.raises(DataError, match=r"\.\./a"):
        mapper({"images": table}, None)
    source = Source(image_id="/etc/a", path="/etc/a.png")
    with pytest.raises(DataError, match="/etc/a"):
        mapper({}, [source])


def test_a_truncated_table_is_to_be_replaced_and_no_directory_removed(tmp_path: Path) -> None:
    table = tmp_path / "x.parquet"
    pq.write_table(pa.table({"image_id": ["a"], "image": [b"anything"]}), table)
    table.write_bytes(table.read_bytes()[:-20])
    with pytest.raises(ArtifactError, match="replace the file by a whole one") as raised:
        check_output(find_photographs(str(table), "masks"), str(tmp_path / "masks"), "parquet")
    assert str(table) in str(raised.value)
    assert "remove" not in str(raised.value)


def damage_images(path: Path) -> None:
    """Overwrites the images of a table, whose footer and ids stay whole."""
    images = pq.ParquetFile(path).metadata.row_group(0).column(1)
    assert images.path_in_schema == "image"
    start = images.dictionary_page_offset or images.data_page_offset
    with path.open("r+b") as file:
        file.seek(start)
        file.write(bytes(255 for _ in range(images.total_compressed_size)))


@pytest.mark.ray
def test_a_cluster_gives_the_same_masks_and_repeats_only_what_is_missing(
    ray_cluster: None, checkpoint: Path, photographs: Path, tmp_path: Path
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    arguments = str(checkpoint), str(photographs)
    assert predict.run(*arguments, str(here)) == 4
    how = PredictSettings(use_cluster=True, images_per_shard=2)
    assert predict.run(*arguments, str(there), how) == 4
    for mask in here.rglob("*.png"):
        assert (there / mask.relative_to(here)).read_bytes() == mask.read_bytes()
    ((path, _),) = json.loads((there / "skipped.json").read_text())
    assert path == f"{photographs}/d.png"
    shards = sorted((there / "predictions").iterdir())
    assert len(shards) == 3
    kept = {shard: shard.stat().st_mtime_ns for shard in shards}
    shards[1].unlink()
    Image.new("RGB", (50, 40)).save(photographs / "e.png")
    assert predict.run(*arguments, str(there), how) == 4
    repeated = [shard for shard in shards if shard.stat().st_mtime_ns != kept[shard]]
    assert repeated == shards[1:], "the missing shard, and the one with the changed image"
    kept = {shard: shard.stat().st_mtime_ns for shard in shards}
    moved = shutil.copytree(photographs, tmp_path / "moved")
    assert predict.run(str(checkpoint), str(moved), str(there), how) == 4
    assert {shard: shard.stat().st_mtime_ns for shard in shards} == kept

    rows = [
        {"image_id": name, "image": (photographs / f"{name}.png").read_bytes()} for name in "ae"
    ]
    (tmp_path / "input").mkdir()
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "input" / "x.parquet")
    output = tmp_path / "tables"
    how = PredictSettings(output_format="parquet")
    assert predict.run(str(checkpoint), str(tmp_path / "input"), str(output), how) == 2
    found = pq.read_table(output / "predictions" / "x.parquet").to_pylist()
    assert [row["image_id"] for row in found] == ["a", "e"]
    damage_images(tmp_path / "input" / "x.parquet")
    with pytest.raises(ArtifactError, match=r"(?s)x\.parquet .*: replace the file by a whole"):
        predict.run(str(checkpoint), str(tmp_path / "input"), str(output), how)
    assert found[0]["labels"] == (here / "a.png").read_bytes()


@pytest.mark.ray
def test_a_replaced_photograph_of_a_list_gets_a_new_mask(
    ray_cluster: None, checkpoint: Path, photographs: Path, tmp_path: Path
) -> None:
    names, masks = photographs / "list.txt", tmp_path / "masks"
    names.write_text("a.png\ne.png\n")
    how = PredictSettings(use_cluster=True, images_per_shard=1)
    assert predict.run(str(checkpoint), str(names), str(masks), how) == 2
    kept = {path: path.stat().st_mtime_ns for path in masks.glob("?.png")}
    shutil.copy(photographs / "deep" / "b.png", photographs / "a.png")
    assert predict.run(str(checkpoint), str(names), str(masks), how) == 2
    repeated = [path.name for path in kept if path.stat().st_mtime_ns != kept[path]]
    assert repeated == ["a.png"]
    expected = slams_ray.load(checkpoint).predict(photographs / "deep" / "b.png").labels
    np.testing.assert_array_equal(np.asarray(Image.open(masks / "a.png")), expected)
