"""Refused reads, in this process instead of Ray's workers."""

import threading
from pathlib import Path

import pyarrow as pa
import pytest

from slams_ray import retries, storage
from slams_ray.errors import ArtifactError
from slams_ray.faults import refused_reads


def test_reads_wait_until_the_flag_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, flag = str(tmp_path / "t.parquet"), tmp_path / "flag"
    storage.write_table(path, pa.table({"number": [1, 2]}))
    monkeypatch.setattr(storage, "_read", storage._read)
    monkeypatch.setattr(retries, "FIRST_PAUSE_SECONDS", 0.02)
    monkeypatch.setenv("SLAMS_REFUSED_READS", str(flag))
    refused_reads.set_up()
    flag.touch()
    timer = threading.Timer(0.2, flag.unlink)
    timer.start()
    assert storage.read_table(path)["number"].to_pylist() == [1, 2]
    timer.join()
    assert storage.read_bytes(path)[:4] == b"PAR1"
    flag.touch()
    monkeypatch.setattr(retries, "PATIENCE_SECONDS", 0.0)
    with pytest.raises(ArtifactError, match="SLOW_DOWN"):
        storage.table_metadata(path)
    with pytest.raises(ArtifactError, match="SLOW_DOWN"):
        storage.read_bytes(path)
