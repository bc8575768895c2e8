"""The cluster of a fault injection leaves nothing behind; no Ray is started."""

import tempfile
from pathlib import Path

import pytest

from slams_ray.faults.nodes import Nodes


def test_stopped_nodes_leave_no_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    genuine = tempfile.mkdtemp
    monkeypatch.setattr(
        "slams_ray.faults.nodes.tempfile.mkdtemp",
        lambda prefix, dir=None: genuine(prefix=prefix, dir=tmp_path),
    )
    nodes = Nodes(cpus_per_node=1)
    assert len(list(tmp_path.iterdir())) == 2
    (nodes._directory / "node-0.log").write_text("from Ray")
    nodes.stop()
    assert list(tmp_path.iterdir()) == []
