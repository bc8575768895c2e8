"""Help lists sections, and explains the settings of some, or of the systems that run."""

import subprocess
import sys
from pathlib import Path

import pytest

from slams_ray.artifacts import flatten, to_plain
from slams_ray.cli.command import PipelineCommand, parse
from slams_ray.cli.compare import CompareCommand
from slams_ray.cli.settings_help import help_request, named_systems, num_settings, section_names
from slams_ray.config.pipeline import SETTINGS_OF, unread_fields
from slams_ray.recipes import RECIPES
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
        parse("Pipeline.", PipelineCommand, ["demo", *arguments, "--help", "all"])
    text = capsys.readouterr().out
    assert "--classifier.training.epochs" in text
    for names in SETTINGS_OF.values():
        for name in names:
            # One whose network is not trained has a box_share.
            setting = "box-share" if name == "clip_es" else "training.epochs"
            assert (f"--{name.replace('_', '-')}.{setting}" in text) is (name in shown), name


def shown_by(*arguments: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit, match="0"):
        parse("Pipeline.", PipelineCommand, list(arguments))
    return capsys.readouterr().out


@pytest.mark.parametrize("system", ["cam", "amn"])
def test_help_of_a_recipe_lists_each_section_once(
    system: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = shown_by("demo", "--system", system, "--help", capsys=capsys)
    config = RECIPES["demo"]()
    read = [name for name in section_names() if name not in unread_fields(["cam", system])]
    lines = text.partition("Sections, with")[2].splitlines()
    listed = dict(line.split()[:2] for line in lines if line.startswith("  "))
    assert listed == {
        name.replace("_", "-"): str(num_settings(getattr(config, name))) for name in read
    }
    (others,) = (line for line in text.splitlines() if line.startswith("Sections of systems"))
    named = others.split(": ")[1].split(", ")
    assert {*named, *listed} == {name.replace("_", "-") for name in section_names()}
    assert "--crf." not in text
    assert "--seed INT" in text


def test_the_numbers_of_the_sections_are_those_of_the_resolved_settings() -> None:
    config = RECIPES["voc12"]()
    for name in section_names():
        assert num_settings(getattr(config, name)) == len(flatten(to_plain(getattr(config, name))))


@pytest.mark.parametrize(
    "arguments",
    [
        ["demo", "--help", "crf", "pixel-adaptive"],
        ["--help", "demo", "crf", "pixel_adaptive"],
        ["demo", "-h", "crf.iterations", "pixel-adaptive", "--seed", "3"],
    ],
)
def test_help_explains_the_sections_that_are_named(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    text = shown_by(*arguments, capsys=capsys)
    assert "--crf.iterations" in text
    assert "Number of mean-field iterations" in text
    assert "--pixel-adaptive.num-rounds" in text
    for other in ("--walk.", "--classifier.", "--segmentation.crf.", "Sections,"):
        assert other not in text


def test_help_explains_a_section_of_a_system_that_does_not_run(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert "--seam.training.epochs" in shown_by("demo", "--help", "seam", capsys=capsys)


def test_help_of_an_unknown_section_names_the_known_ones(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit, match="1"):
        parse("Pipeline.", PipelineCommand, ["demo", "--help", "wlk"])
    answer = capsys.readouterr().err
    assert "there is no section 'wlk'" in answer
    assert "segmentation" in answer
    assert answer.strip().endswith("did you mean walk?")


@pytest.mark.parametrize("words", [[], ["all"], ["recam"]])
def test_help_counts_the_settings_of_a_file(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("recipe: demo\nsystem: recam\nbaselines: [cam]\n")
    text = shown_by("--config", str(path), "--help", *words, capsys=capsys)
    assert ("--recam.softmax-weight" in text) is bool(words)
    assert ("\n  recam " in text) is (not words)
    assert "--encoder." not in text


def test_a_bad_value_beside_help_prints_no_overview(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        parse("Pipeline.", PipelineCommand, ["demo", "--system", "unicorn", "--help"])
    assert "Sections" not in capsys.readouterr().out


def test_a_comparison_runs_the_systems_that_it_names(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        parse("", CompareCommand, ["demo", "--systems", "cam", "recam", "--help"])
    text = capsys.readouterr().out
    assert "\n  recam " in text
    assert "\n  encoder " not in text


def test_a_command_line_without_help_asks_for_none() -> None:
    assert help_request(["demo", "--seed", "3"]) is None


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
