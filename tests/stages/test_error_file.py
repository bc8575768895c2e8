"""The traceback of a failed stage: whole, without passwords, in the workspace and in MLflow."""

from collections.abc import Callable
from pathlib import Path

import pytest

from slams_ray.config import PipelineConfig
from slams_ray.errors import TrainingError
from slams_ray.stages import pipeline
from slams_ray.stages.stage import Attempt, Outcome, Result, run_stage

OF_A_WORKER = "\nIn a training worker:\n  File trainer.py, in _train\nOSError: http://me:pw@host\n"


def fail(attempt: Attempt) -> Outcome:
    error = TrainingError("training cam failed: no batch")
    error.add_note(OF_A_WORKER)
    raise error


def fail_where_none_can_write(attempt: Attempt) -> Outcome:
    Path(attempt.output_dir, "error.txt").mkdir(parents=True)
    return fail(attempt)


def succeed(attempt: Attempt) -> Outcome:
    return Outcome(num_rows=1)


def run(workspace: Path, config: PipelineConfig, work: Callable[[Attempt], Outcome]) -> Result:
    with pipeline.open_session(config, str(workspace), "tiny") as session:
        return run_stage(pipeline.make_context(config, session), "prepare", {}, {}, work)


def test_a_failed_stage_leaves_its_traceback_until_it_succeeds(
    tmp_path: Path, tiny_config: PipelineConfig
) -> None:
    with pytest.raises(TrainingError):
        run(tmp_path, tiny_config, fail)
    (found,) = (tmp_path / "prepare").rglob("error.txt")
    text = found.read_text()
    assert "in fail" in text
    assert "training cam failed: no batch" in text
    assert "  File trainer.py, in _train\nOSError: http://me:***@host" in text
    (tracked,) = (tmp_path / "mlartifacts").rglob("error.txt")
    assert tracked.read_text() == text
    result = run(tmp_path, tiny_config, succeed)
    assert found.parent == Path(result.output_dir)
    assert [p.name for p in found.parent.iterdir()] == ["record.json"]


def test_a_workspace_that_takes_no_traceback_does_not_hide_the_error(
    tmp_path: Path, tiny_config: PipelineConfig
) -> None:
    with pytest.raises(TrainingError, match="no batch"):
        run(tmp_path, tiny_config, fail_where_none_can_write)
