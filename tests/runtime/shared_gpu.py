"""Shards and trials on a cluster that says it has a GPU; prints what each was given, as JSON.

python -m tests.runtime.shared_gpu DIRECTORY
"""

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

import pyarrow as pa
import ray

from slams_ray.config import ComputeConfig
from slams_ray.runtime import cluster
from slams_ray.runtime.pools import gpu_pool
from slams_ray.runtime.search import search
from slams_ray.runtime.search_space import SearchSpace
from slams_ray.runtime.shards import ShardJob, ShardWork, run_shards
from slams_ray.runtime.trial_plan import SearchPlan
from slams_ray.stages.infer_activation import inference_pool

PER_GPU, NUM_CPUS, NUM_GPUS = 2, 8, 2
NAMES = [f"{number:06d}.parquet" for number in range(3)]


def make_work() -> ShardWork:
    return lambda tables, payload: (pa.table({"image_id": ["a"]}), given())


def given() -> dict[str, Any]:
    """Ids of GPUs, how much of one this process holds, and who could feed a training here."""
    share = ray.get_runtime_context().get_assigned_resources().get("GPU", 0.0)
    return {
        "gpus": [int(float(number)) for number in ray.get_gpu_ids()],
        "share": share,
        "loading_tasks": cluster.num_data_loading_tasks(),
    }


def trial(point: Mapping[str, Any]) -> Iterator[dict[str, float]]:
    yield {"miou": 1.0, "share": given()["share"]}


if __name__ == "__main__":
    (directory,) = sys.argv[1:]
    ray.init(address="local", num_cpus=NUM_CPUS, num_gpus=NUM_GPUS, include_dashboard=False)
    pool = gpu_pool("auto", None, PER_GPU)
    job = ShardJob(
        label="shared",
        names=NAMES,
        inputs={},
        output_dir=f"{directory}/shards",
        fingerprint="shared",
        make_work=make_work,
        pool=pool,
    )
    shards = [summary for _, summary in run_shards(job)]
    plan = SearchPlan(
        algorithm="grid",
        num_samples=1,
        metric="miou",
        num_reports=1,
        feedback_delay=2,
        max_concurrent=None,
        cpus_per_trial=0.5,
        time_budget_seconds=None,
        seed=0,
        pool=pool,
    )
    trials = search(trial, SearchSpace({"x": [1, 2]}), plan, f"{directory}/trials", str)
    shares = [found.history[-1]["share"] for found in trials]
    chosen = inference_pool(ComputeConfig(gpu_actors=1, actors_per_gpu=4))()
    print(
        json.dumps(
            {
                "shards": shards,
                "trials": shares,
                "on_cpu": gpu_pool("cpu", None, 2)(),
                "inference": asdict(chosen),
            }
        )
    )
