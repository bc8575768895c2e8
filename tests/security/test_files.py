"""What is loaded of files runs no code: networks, weights, shards, records."""

import ast
import base64
import io
import json
import pickle
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from slams_ray import storage
from slams_ray.artifacts import read_record
from slams_ray.errors import ArtifactError, ConfigError
from slams_ray.networks.backbone import build_backbone
from slams_ray.networks.checkpoint import dump_network, load_network
from slams_ray.networks.segmentation_network import SegmentationNetwork
from slams_ray.networks.weights import load_backbone_weights
from slams_ray.seeds import shard_work as count
from slams_ray.seeds.label_free import CriterionSums

ROOT = Path(__file__).parents[2]
ARCHITECTURE: dict[str, Any] = {
    "backbone_name": "tiny_resnet",
    "output_stride": 8,
    "num_classes": 1,
    "head": "deeplabv2",
}
CLASS_NAMES = ("background", "cat")


class Payload:
    """Leaves a file where it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self.trace,)


def by_torch(content: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def checkpoint_with(payload: Payload) -> bytes:
    """A checkpoint of ours in everything but one entry."""
    network = SegmentationNetwork(**ARCHITECTURE)
    whole = torch.load(
        io.BytesIO(dump_network(network, ARCHITECTURE, CLASS_NAMES)), weights_only=True
    )
    return by_torch(whole | {"architecture": whole["architecture"] | {"head": payload}})


def test_the_payload_runs_where_pickle_is_read(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Payload(tmp_path / "ran")))
    assert (tmp_path / "ran").exists()
    torch.load(io.BytesIO(checkpoint_with(Payload(tmp_path / "too"))), weights_only=False)
    assert (tmp_path / "too").exists()


@pytest.mark.parametrize("make", [checkpoint_with, by_torch, pickle.dumps])
def test_a_network_with_a_callable_in_it_is_refused_and_not_run(
    tmp_path: Path, make: Callable[[Payload], bytes]
) -> None:
    data = make(Payload(tmp_path / "ran"))
    with pytest.raises(ArtifactError, match=r"model\.pt .*is not a readable checkpoint"):
        load_network(data, "model.pt", "segmentation_network", CLASS_NAMES)
    assert not (tmp_path / "ran").exists()


def test_a_weights_file_with_a_callable_in_it_is_refused_and_not_run(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(by_torch({"conv1.weight": Payload(tmp_path / "ran")}))
    with pytest.raises(ConfigError, match=r"weights\.pth"):
        load_backbone_weights(build_backbone("tiny_resnet", 8), str(path))
    assert not (tmp_path / "ran").exists()


def test_a_shard_and_a_record_of_pickle_are_refused_and_not_run(tmp_path: Path) -> None:
    data = pickle.dumps(Payload(tmp_path / "ran"))
    for name in ("000000.parquet", "record.json"):
        (tmp_path / name).write_bytes(data)
    with pytest.raises(ArtifactError, match=r"000000\.parquet is missing or truncated"):
        storage.read_table(str(tmp_path / "000000.parquet"))
    assert storage.table_metadata(str(tmp_path / "000000.parquet")) is None
    with pytest.raises(ArtifactError, match=r"record\.json is truncated or not a record"):
        read_record(str(tmp_path))
    assert not (tmp_path / "ran").exists()


def test_a_pickled_column_comes_back_as_bytes(tmp_path: Path) -> None:
    data = pickle.dumps(Payload(tmp_path / "ran"))
    path = str(tmp_path / "shard.parquet")
    storage.write_table(path, pa.table({"image": [data]}))
    assert storage.read_table(path)["image"].to_pylist() == [data]
    assert not (tmp_path / "ran").exists()


def test_counts_of_a_shard_hold_no_pickled_array(tmp_path: Path) -> None:
    objects = np.array([Payload(tmp_path / "ran")], dtype=object)
    buffer = io.BytesIO()
    np.save(buffer, objects, allow_pickle=True)
    text = base64.b85encode(zlib.compress(buffer.getvalue())).decode()
    with pytest.raises(ValueError, match="allow_pickle=False"):
        count.unpack(CriterionSums, json.loads(json.dumps({"sums": text})))
    assert not (tmp_path / "ran").exists()


def unsafe_loads(source: str) -> list[str]:
    """Calls that may run what they read: torch.load without weights_only, pickle, numpy's."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        owner, name = ast.unparse(node.func.value), node.func.attr
        options = {k.arg: ast.unparse(k.value) for k in node.keywords}
        is_safe = options.get("weights_only") == "True" or options.get("allow_pickle") == "False"
        if owner in ("torch", "pickle", "np") and name in ("load", "loads") and not is_safe:
            found.append(f"{owner}.{name}")
    return found


def test_pickle_is_read_only_of_messages_between_our_own_processes() -> None:
    found = {
        str(path.relative_to(ROOT)): calls
        for package in ("slams_ray", "jobs")
        for path in sorted((ROOT / package).rglob("*.py"))
        if (calls := unsafe_loads(path.read_text(encoding="utf-8")))
    }
    # Rows of Ray Data and a training that the same run has made a moment before; Ray itself pickles
    # all others.
    assert found == {
        "slams_ray/runtime/shards.py": ["pickle.loads"],
        "slams_ray/runtime/trainer.py": ["pickle.loads"],
        "slams_ray/runtime/training_batches.py": ["pickle.loads"],
    }


@pytest.mark.parametrize(
    "source", ["torch.load(f)", "torch.load(f, weights_only=False)", "np.load(f)", "pickle.load(f)"]
)
def test_a_planted_unsafe_load_is_found(source: str) -> None:
    assert len(unsafe_loads(source)) == 1
