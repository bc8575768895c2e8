"""slams_ray.train runs what jobs.pipeline runs."""

import sys
from typing import Any

import pytest

import slams_ray
from slams_ray.errors import ConfigError
from slams_ray.runtime.submitted_job import COPIED_CODE
from slams_ray.stages.config_file import dump_config


@pytest.mark.ray
def test_it_keeps_what_the_same_settings_have_made(finished: Any, tmp_path: Any) -> None:
    workspace = finished.copy_to(tmp_path)
    settings = {"seed": finished.config.seed}
    again = slams_ray.train("smoke", settings, workspace=workspace, show_progress=False)
    assert again.summary["scores"] == finished.result.summary["scores"]
    assert all(result.cached for result in again.results.values())
    assert slams_ray.load(workspace).class_names == slams_ray.load(finished.workspace).class_names


@pytest.mark.ray
def test_until_and_a_changed_setting(finished: Any, tmp_path: Any) -> None:
    changed = {"threshold.fixed": 0.5}
    workspace = finished.copy_to(tmp_path)
    run = slams_ray.train(
        "smoke", changed, workspace=workspace, until="search_threshold", show_progress=False
    )
    assert list(run.results)[-1] == "search_threshold"
    assert not run.results["search_threshold"].cached
    assert run.results["infer_activation"].cached


@pytest.mark.ray
def test_the_file_of_a_workspace_starts_the_same_run(finished: Any, tmp_path: Any) -> None:
    workspace = finished.copy_to(tmp_path)
    file = workspace / "config.yaml"
    file.write_text(dump_config("smoke", finished.config))
    changed = {"crf": {"iterations": finished.config.crf.iterations + 1}}
    again = slams_ray.train(str(file), changed, workspace=workspace, until="refine")
    assert not again.results.pop("refine").cached
    assert all(result.cached for result in again.results.values())
    log = (workspace / "log.txt").read_text().splitlines()
    assert any("refine" in line and "done in" in line for line in log)


@pytest.mark.parametrize(
    ("recipe", "settings", "workspace", "message"),
    [
        ("foldr", {}, "w", "there is no recipe 'foldr'.*did you mean folder"),
        ("folder", {"crf.beta": 1}, "w", "there is no setting crf.beta"),
        ("folder", {"seed": "one"}, "w", "seed is 'one'"),
        ("folder", {"data.root": "nowhere"}, "w", "data.root is 'nowhere', but there is no"),
        ("folder", {"data.root": "/usr"}, "w", "/usr/labels.csv is missing"),
        ("missing.yaml", {}, "w", "missing.yaml is missing"),
        ("folder", {}, f"/tmp/ray{COPIED_CODE}w", "workspace is .*the copy of the code"),
    ],
)
def test_errors_come_before_any_work(
    recipe: str,
    settings: dict[str, Any],
    workspace: str,
    message: str,
    tmp_path: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=message):
        slams_ray.train(recipe, settings, workspace=workspace, show_progress=False)
    assert not any(tmp_path.iterdir())


def test_missing_libraries_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "slams_ray.config.overrides", raising=False)
    monkeypatch.setitem(sys.modules, "pydantic", None)
    with pytest.raises(ConfigError, match=r"train needs pydantic: .*\[train\]"):
        slams_ray.train("folder")
