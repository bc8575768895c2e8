"""Settings of an earlier version end with the name they have now."""

import pytest

from slams_ray.cli.command import PipelineCommand, parse
from slams_ray.cli.old_names import REMOVED, RENAMED, check_names
from slams_ray.config.overrides import override
from slams_ray.errors import ConfigError
from slams_ray.recipes import RECIPES


@pytest.mark.parametrize(
    ("argument", "name"),
    [
        ("--compute.feed-tasks", "--compute.data-loading-tasks"),
        ("--compute.feed_tasks=3", "--compute.data-loading-tasks"),
        ("--activation.cut-width", "--activation.binarisation-width"),
        ("--search.num-strengths", "--search.num-thresholds"),
    ],
)
def test_an_old_name_is_answered_with_the_new_one(argument: str, name: str) -> None:
    with pytest.raises(ConfigError, match=f"was renamed: use {name}"):
        check_names(["demo", argument])


def test_a_removed_setting_says_why_it_is_gone() -> None:
    with pytest.raises(
        ConfigError, match=r"threshold\.per-class was removed: thresholds per class"
    ):
        check_names(["demo", "--threshold.per-class"])


def test_every_new_name_is_a_setting_and_no_old_one_is() -> None:
    config = RECIPES["demo"]()
    for old, new in RENAMED.items():
        assert override(config, {new.replace("-", "_"): 1}) is not None
        with pytest.raises(ConfigError, match="there is no setting"):
            override(config, {old.replace("-", "_"): 1})
    for old in REMOVED:
        with pytest.raises(ConfigError, match="there is no setting"):
            override(config, {old.replace("-", "_"): True})


def test_the_command_line_ends_before_anything_starts(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="1"):
        parse("Pipeline.", PipelineCommand, ["demo", "--compute.feed-tasks", "2"])
    assert "compute.data-loading-tasks" in capsys.readouterr().err
