"""Names and explanations of stages in the log and in MLflow."""

import logging
from dataclasses import replace
from pathlib import Path

import pytest

from slams_ray.config import ComputeConfig, TrackingConfig
from slams_ray.runtime.session import TrackingSession
from slams_ray.stages.stage import Outcome, StageContext, run_stage


def context(workspace: Path) -> StageContext:
    return StageContext(
        workspace=str(workspace),
        compute=ComputeConfig(device="cpu"),
        tracking=TrackingConfig(),
        session=TrackingSession(str(workspace), "e", "parent", "key", {}),
    )


def run_refine(context: StageContext, iterations: int) -> None:
    run_stage(context, "refine", {"iterations": iterations}, {}, lambda _: Outcome(num_rows=1))


def test_a_stage_that_runs_twice_in_a_pipeline_is_told_apart(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = context(tmp_path)
    with caplog.at_level(logging.INFO, logger="slams_ray"), first.session as session:
        run_refine(replace(first, prefix="cam_"), 5)
        run_refine(first, 10)
    started = [r.getMessage() for r in caplog.records if "started" in r.getMessage()]
    assert [message.split()[0] for message in started] == ["cam_refine", "refine"]
    assert "differs" not in caplog.text
    assert session.parent is not None
    runs = session.parent.client.search_runs(["1"], "tags.`slams.stage` = 'refine'")
    assert sorted(run.info.run_name for run in runs) == ["cam_refine", "refine"]


def test_a_later_run_says_what_differs(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for iterations in (5, 10):
        now = context(tmp_path)
        with caplog.at_level(logging.INFO, logger="slams_ray"), now.session:
            run_refine(now, iterations)
    (explained,) = [r.getMessage() for r in caplog.records if "differs" in r.getMessage()]
    assert explained.split(" in ")[1] == "iterations: 5 -> 10"
