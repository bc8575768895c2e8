"""Publishes the rows of a benchmark as JSON and as an MLflow run."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from slams_ray import storage
from slams_ray.benchmarks.harness.measure import Row
from slams_ray.runtime.tracking import Tracker

EXPERIMENT = "benchmarks"
MAX_NAME = 240
"""MLflow accepts metric names of up to 250 characters."""


def publish(
    rows: Sequence[Row], name: str, workspace: str, output: str, settings: Mapping[str, Any]
) -> None:
    """Writes the rows to `output`, and logs them to a run named after the benchmark.

    Args:
        settings: settings of the command, logged as parameters.
    """
    text = json.dumps([asdict(row) for row in rows], indent=1) + "\n"
    storage.write_bytes(output, text.encode())
    run = Tracker(workspace, EXPERIMENT).start(name, {"slams.benchmark": name})
    run.log_params(dict(settings) | {"machine": rows[0].machine})
    for row in rows:
        run.log_metrics(row_metrics(row))
    run.log_metrics({"num_missed": sum(not row.met for row in rows)})
    run.log_file(output)
    run.finish("FINISHED")


def row_metrics(row: Row) -> dict[str, float]:
    """Returns ratio, goal and quartiles under names that MLflow accepts. Charts group by prefix."""
    label = re.sub(r"[^\w .:/-]", "", f"{row.what} against {row.against}").replace("/", " of ")
    values = {
        "ratio": row.ratio,
        "goal": row.goal,
        "lower_quartile": row.spread[0],
        "upper_quartile": row.spread[1],
    }
    return {f"{kind}/{label}"[:MAX_NAME]: value for kind, value in values.items()}
