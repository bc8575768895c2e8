"""A driver whose shards take a second each, so that nodes can come while it works.

python -m tests.cluster.slow_shards OUTPUT_DIR NUM_SHARDS tasks|actors

prints the shards that each node made, as a JSON object.
"""

import json
import sys
import time
from typing import Any

import pyarrow as pa

from slams_ray.runtime.shards import ShardJob, ShardWork, pool, sum_shards


def work(tables: dict[str, pa.Table], payload: Any) -> tuple[pa.Table, dict[str, Any]]:
    time.sleep(1)
    return pa.table({"image_id": ["a"]}), {}


def make_work() -> ShardWork:
    return work


if __name__ == "__main__":
    output_dir, num_shards, kind = sys.argv[1:]
    job = ShardJob(
        label="slow",
        names=[f"{number:06d}.parquet" for number in range(int(num_shards))],
        inputs={},
        output_dir=output_dir,
        fingerprint="slow",
        make_work=make_work,
        pool=pool("cpu", None) if kind == "actors" else None,
    )
    sum_shards(job, [])
    print(json.dumps(job.nodes))
