"""A driver whose shards take three seconds each until a file HURRY is there.

Nodes can so come while it works, however long they take.

python -m tests.cluster.slow_shards OUTPUT_DIR NUM_SHARDS tasks|actors

prints the shards that each node made, as a JSON object.
"""

import json
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from slams_ray.runtime.pools import pool
from slams_ray.runtime.shards import ShardJob, ShardWork, sum_shards

FINGERPRINT = "slow"
SECONDS = 3
"""Of a shard, until there is a file HURRY: the node that joins has NUM_SHARDS times that long."""


def work(hurry: Path, tables: dict[str, pa.Table], payload: Any) -> tuple[pa.Table, dict[str, Any]]:
    time.sleep(0 if hurry.exists() else SECONDS)
    return pa.table({"image_id": ["a"]}), {}


def make_work(hurry: Path) -> ShardWork:
    return partial(work, hurry)


if __name__ == "__main__":
    output_dir, num_shards, kind = sys.argv[1:]
    job = ShardJob(
        label="slow",
        names=[f"{number:06d}.parquet" for number in range(int(num_shards))],
        inputs={},
        output_dir=output_dir,
        fingerprint=FINGERPRINT,
        make_work=partial(make_work, Path(output_dir).with_name("HURRY")),
        pool=pool("cpu", None, 1) if kind == "actors" else None,
    )
    sum_shards(job, [])
    print(json.dumps(job.nodes))
