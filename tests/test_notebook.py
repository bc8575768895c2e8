"""The cells of the notebook run, on the outputs of a pipeline that has finished."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.ray
NOTEBOOK = Path(__file__).parents[1] / "docs" / "first_steps.ipynb"


def test_every_cell_runs(finished: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPLBACKEND", "agg")
    monkeypatch.chdir(tmp_path)
    os.makedirs("runs")
    shutil.copytree(finished.workspace, "runs/first_steps")
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    names: dict[str, Any] = {}
    for cell in cells:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), cell["id"], "exec"), names)
    assert names["finished"].summary["scores"] == finished.result.summary["scores"]
    assert all(result.cached for result in names["finished"].results.values())
    assert set(names["curves"]) == {"cam", "slams"}
    labels = names["result"].labels
    assert labels.ndim == 2
    assert labels.max() < len(names["result"].class_names)
