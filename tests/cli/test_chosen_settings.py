"""Help shows the settings of the systems that run; those of others still parse."""

import subprocess
import sys

import pytest

from slams_ray.cli.chosen_settings import named_systems
from slams_ray.cli.command import PipelineCommand, parse
from slams_ray.config.pipeline import SETTINGS_OF, unread_fields
from slams_ray.systems.registry import SYSTEMS


def test_every_system_with_settings_of_its_own_is_known() -> None:
    with_networks = {name for name, system in SYSTEMS.items() if system.map_stage}
    assert set(SETTINGS_OF) == with_networks - {"cam"}
    assert unread_fields(SYSTEMS) == set()
    assert "encoder" in unread_fields(["cam", "recam"])
    assert "recam" not in unread_fields(["cam", "recam"])


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["demo"], []),
        (["demo", "--baselines", "cam", "recam", "--seed", "3"], ["cam", "recam"]),
        (["demo", "--baselines=cam", "recam"], ["cam", "recam"]),
        (["demo", "--system", "recam"], []),
    ],
)
def test_systems_named_on_a_command_line(arguments: list[str], expected: list[str]) -> None:
    assert named_systems(arguments, "baselines") == expected


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        ([], {"encoder", "activation"}),
        (["--system=recam"], {"recam"}),
        (["--baselines", "recam"], {"recam", "encoder", "activation"}),
        (["--activation.pseudo-labels-of", "recam"], {"recam", "encoder", "activation"}),
        (["--activation.pseudo_labels_of=recam"], {"recam", "encoder", "activation"}),
        (["--system", "cam", "--activation.pseudo-labels-of", "recam"], set()),
        (["--system", "clip_es", "--clip-es.weights", "given.pt"], {"clip_es"}),
    ],
)
def test_help_shows_the_settings_of_the_systems_that_run(
    arguments: list[str], shown: set[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="0"):
        parse("Pipeline.", PipelineCommand, ["demo", *arguments, "--help"])
    text = capsys.readouterr().out
    assert "--classifier.training.epochs" in text
    for names in SETTINGS_OF.values():
        for name in names:
            # One whose network is not trained has a box_share.
            setting = "box-share" if name == "clip_es" else "training.epochs"
            assert (f"--{name.replace('_', '-')}.{setting}" in text) is (name in shown), name


def test_settings_of_other_systems_parse() -> None:
    _, command = parse("", PipelineCommand, ["demo", "--recam.softmax-weight", "0.5"])
    assert command.config.recam.softmax_weight == 0.5


def test_a_dry_run_prints_the_settings_of_the_systems_that_run() -> None:
    command = [sys.executable, "-m", "jobs.pipeline", "demo", "--system", "recam", "--dry-run"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "\nrecam.softmax_weight = 1.0\n" in shown
    assert "\nencoder." not in shown


def test_an_unknown_system_is_answered_with_the_known_ones(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit, match="2"):
        parse("", PipelineCommand, ["demo", "--system", "unicorn"])
    answer = capsys.readouterr().err
    assert "unicorn" in answer
    assert "recam" in answer
