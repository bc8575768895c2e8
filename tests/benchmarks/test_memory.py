"""Peaks are read of the right processes, and the stages find what they read."""

import multiprocessing
import os
from pathlib import Path

import numpy as np
import pytest

from slams_ray import storage
from slams_ray.benchmarks.harness import processes, shards
from slams_ray.benchmarks.measurements import memory


def hold(num_bytes: int, pipe: object) -> None:
    pipe.send("started")  # type: ignore[attr-defined]
    pipe.recv()  # type: ignore[attr-defined]
    held = np.ones(num_bytes, np.uint8)
    assert held[-1] == 1
    pipe.send("held")  # type: ignore[attr-defined]
    pipe.recv()  # type: ignore[attr-defined]


@pytest.mark.slow
def test_the_peak_of_a_descendant_counts_what_it_held() -> None:
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Pipe()
    process = spawn.Process(target=hold, args=(200 * 2**20, there))
    process.start()
    assert process.pid is not None
    try:
        assert here.recv() == "started"
        before = processes.peak_bytes(process.pid)
        here.send("hold")
        assert here.recv() == "held"
        assert process.pid in processes.descendants(os.getpid())
        assert 190 * 2**20 < processes.peak_bytes(process.pid) - before < 220 * 2**20
        assert not processes.is_ray_worker(process.pid)
    finally:
        here.send("end")
        process.join()
    assert processes.peak_bytes(process.pid) == 0


def test_repeated_shards_hold_the_same_images_under_further_names(tmp_path: Path) -> None:
    data = shards.write_shards(shards.data_config(None, 4, None), str(tmp_path), 2, 2)
    memory.write_inputs(data)
    more = memory.repeated(data, 2)
    assert len(more.paths) == 4
    ids = [storage.read_table(path)["image_id"].to_pylist() for path in more.paths]
    assert ids[2:] == ids[:2]
    assert ids[0] != ids[1]


@pytest.mark.ray
@pytest.mark.long
def test_memory_rows_of_every_stage(tmp_path: Path) -> None:
    data = shards.write_shards(shards.data_config(None, 2, None), str(tmp_path), 1, 2)
    rows = memory.memory_rows(data, (1, 2))
    assert [row.what.split(",")[0] for row in rows] == [
        "peak memory of the count curve",
        "peak memory of the walk",
        "peak memory of evaluation",
    ]
    assert all(0.5 < row.ratio < 2 for row in rows)
