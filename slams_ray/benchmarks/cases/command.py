"""Settings that all benchmark cases share."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class BenchmarkCommand:
    """Settings of a benchmark's output. Rows are also printed, and logged to MLflow."""

    output: str | None = None
    """JSON file for the rows. The default is <workspace>/<case>.json."""
    workspace: str = "runs/benchmarks"
    """Directory for the benchmark's files, and for MLflow if MLFLOW_TRACKING_URI is not set."""
