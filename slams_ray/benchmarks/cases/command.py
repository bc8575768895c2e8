"""What all benchmark cases share: where their rows go."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class BenchmarkCommand:
    """Where the rows go: printed, written as JSON, logged to MLflow."""

    output: str | None = None
    """JSON file for the rows: what, against, ratio, goal, met, spread, machine. Default:
    <workspace>/<case>.json."""
    workspace: str = "runs/benchmarks"
    """Directory for what the benchmark writes, and for MLflow where MLFLOW_TRACKING_URI is not
    set."""
