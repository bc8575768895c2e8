"""The whole pipeline with its workspace in an object store: nothing is shared on disk."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
import pytest

from slams_ray import storage
from slams_ray.artifacts import RECORD_NAME
from slams_ray.config import PipelineConfig
from slams_ray.faults.tracking_server import TrackingServer
from slams_ray.stages import pipeline
from slams_ray.stages.pipeline import PipelineResult

if TYPE_CHECKING:
    from tests.conftest import Finished

pytestmark = [pytest.mark.ray, pytest.mark.slow]

BUCKET = "pipeline"
WORKSPACE = f"s3://{BUCKET}/runs/tiny"
BROUGHT = ("train_encoder", "train_classifier", "train_activation")
"""Stages whose outputs are copied from a local workspace: they serve in any workspace."""


def versions() -> dict[str, str]:
    """Key -> version of every object: a write gives another, whatever it writes."""
    pages = boto3.client("s3").get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
    client = boto3.client("s3")
    keys = [entry["Key"] for page in pages for entry in page.get("Contents", [])]
    return {key: client.head_object(Bucket=BUCKET, Key=key)["VersionId"] for key in keys}


@pytest.fixture(scope="module")
def mlflow_server(
    object_store: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Path]]:
    """Address of a server whose artifacts are in the store too, and its directory."""
    client = boto3.client("s3")
    client.create_bucket(Bucket=BUCKET)
    client.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    directory = tmp_path_factory.mktemp("mlflow")
    server = TrackingServer(directory, f"s3://{BUCKET}/mlflow")
    server.start()
    try:
        yield server.uri, directory
    finally:
        server.kill()


@dataclass(frozen=True)
class OnS3:
    """A pipeline that has run, what its bucket then held, and where the process ran."""

    config: PipelineConfig
    result: PipelineResult
    versions: dict[str, str]
    tracking_uri: str
    local: Path


@pytest.fixture(scope="module")
def on_s3(
    mlflow_server: tuple[str, Path],
    finished: "Finished",
    tiny_config: PipelineConfig,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[OnS3]:
    address, directory = mlflow_server
    for stage in BROUGHT:
        for path in (finished.workspace / stage).rglob("*"):
            if path.is_file():
                name = path.relative_to(finished.workspace)
                storage.write_bytes(f"{WORKSPACE}/{name}", path.read_bytes())
    local = tmp_path_factory.mktemp("local")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", address)
        patch.chdir(local)
        result = pipeline.run(tiny_config, WORKSPACE, "tiny")
        yield OnS3(tiny_config, result, versions(), address, directory)
        assert list(local.iterdir()) == [], "something was written beside the store"


def test_every_output_is_in_the_bucket(on_s3: OnS3) -> None:
    for stage, result in on_s3.result.results.items():
        assert result.cached is (stage in BROUGHT)
        assert result.output_dir.startswith(f"{WORKSPACE}/{stage}/")
        assert storage.exists(result.path(RECORD_NAME))
    summary = json.loads(storage.read_bytes(f"{WORKSPACE}/summary.json"))
    assert 0 <= summary["scores"]["segmentation_miou"] <= 1
    lists = f"{on_s3.result.results['refine'].output_dir}/voc/ImageSets/Segmentation/train.txt"
    assert len(storage.read_bytes(lists).split()) == 24
    assert not [key for key in on_s3.versions if key.endswith(".tmp")]


def test_the_same_seed_gives_the_same_numbers_as_on_a_local_disk(
    on_s3: OnS3, finished: "Finished"
) -> None:
    for stage, result in on_s3.result.results.items():
        assert result.record.metrics == finished.result.results[stage].record.metrics, stage


def test_mlflows_artifacts_are_there_too(on_s3: OnS3) -> None:
    names = {key.rsplit("/", 1)[1] for key in on_s3.versions if key.startswith("mlflow/")}
    assert {"montage.png", "model.pt", RECORD_NAME, "threshold.json"} <= names


def test_a_rerun_writes_nothing(on_s3: OnS3) -> None:
    again = pipeline.run(on_s3.config, WORKSPACE, "tiny")
    assert all(result.cached for result in again.results.values())
    assert versions() == on_s3.versions


def test_of_a_lost_shard_and_record_only_they_are_made_again(on_s3: OnS3) -> None:
    refined = on_s3.result.results["refine"]
    shard = refined.path("pseudo_labels", "000001.parquet")
    ids = storage.read_table(shard, ["image_id"])["image_id"].to_pylist()
    for path in (shard, refined.path(RECORD_NAME)):
        storage.remove(path)
    again = pipeline.run(on_s3.config, WORKSPACE, "tiny")
    assert [name for name, result in again.results.items() if not result.cached] == ["refine"]
    prefix = refined.output_dir.removeprefix(f"s3://{BUCKET}/")
    now = versions()
    # pyarrow marks a directory, by a key that ends with a slash, when it removes a file from it.
    written = {
        key.removeprefix(f"{prefix}/")
        for key in now
        if key.startswith(prefix) and now[key] != on_s3.versions.get(key) and key[-1] != "/"
    }
    exported = {f"voc/SegmentationClass/{i}.png" for i in ids}
    exported |= {f"voc/JPEGImages/{i}.jpg" for i in ids}
    lists = {"voc/ImageSets/Segmentation/train.txt", "voc/class_names.txt"}
    figures = {"settings.png", "threshold_curve.png"}
    assert written == {
        "pseudo_labels/000001.parquet",
        RECORD_NAME,
        *exported,
        *lists,
        *figures,
    }
    assert again.results["refine"].record.metrics == refined.record.metrics


def test_the_stores_key_is_in_no_object_database_or_log_of_ray(on_s3: OnS3) -> None:
    import ray

    secret = os.environ["AWS_SECRET_ACCESS_KEY"].encode()
    client = boto3.client("s3")
    objects = [client.get_object(Bucket=BUCKET, Key=key)["Body"].read() for key in versions()]
    session = Path(ray._private.worker._global_node.get_session_dir_path())
    files = [p for d in (on_s3.local, session / "logs") for p in d.rglob("*") if p.is_file()]
    assert len(files) > 10
    assert [str(p) for p in files if secret in p.read_bytes()] == []
    assert sum(secret in data for data in objects) == 0
