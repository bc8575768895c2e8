"""The rows of a benchmark reach the JSON file and MLflow with their numbers."""

import json
from pathlib import Path

import pytest
from mlflow import MlflowClient

from slams_ray.benchmarks.cases.command import BenchmarkCommand
from slams_ray.benchmarks.harness.measure import row
from slams_ray.cli.benchmark import show

ROWS = [
    row("threshold curve, 256 levels", "100 evaluations", [70.0, 80.0, 90.0], goal=50),
    row("peak memory/evaluate (MB)", "1x images", [0.8], goal=0.91),
]


def test_rows_become_json_metrics_and_parameters(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "rows.json"
    show("crf", BenchmarkCommand(output=str(output), workspace=str(tmp_path)), ROWS)
    assert [r["ratio"] for r in json.loads(output.read_text())] == [80.0, 0.8]
    assert "missed" in capsys.readouterr().out

    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    experiment = client.get_experiment_by_name("benchmarks")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    metrics = run.data.metrics
    curve = "threshold curve 256 levels against 100 evaluations"
    assert metrics[f"ratio/{curve}"] == 80
    assert metrics[f"lower_quartile/{curve}"] == 70
    assert metrics["ratio/peak memory of evaluate MB against 1x images"] == 0.8
    assert metrics["num_missed"] == 1
    assert run.data.params["machine"] == ROWS[0].machine
    assert [a.path for a in client.list_artifacts(run.info.run_id)] == ["rows.json"]
