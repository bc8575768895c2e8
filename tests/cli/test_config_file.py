"""Settings from a YAML file: the same run again, overrides on top, wrong names and types named."""

from dataclasses import replace
from pathlib import Path

import pytest

from slams_ray.artifacts import fingerprint, to_plain
from slams_ray.cli.command import PipelineCommand, parse, save_settings
from slams_ray.cli.config_file import with_config_file
from slams_ray.config import ImportedConfig
from slams_ray.errors import ConfigError
from slams_ray.recipes import RECIPES
from slams_ray.stages.config_file import dump_config


def parsed(*arguments: str) -> tuple[str, PipelineCommand]:
    return parse("", PipelineCommand, list(arguments))


@pytest.mark.parametrize("recipe", sorted(RECIPES))
def test_saved_settings_start_the_same_run(recipe: str, tmp_path: Path) -> None:
    path = tmp_path / "saved.yaml"
    base = RECIPES[recipe]()
    changed = replace(
        base,
        seed=7,
        imported=ImportedConfig(maps="/a b/maps"),
        activation=replace(base.activation, initialise_from_cam=False),
        affinity=replace(base.affinity, pair=(0.05, 0.3)),
        walk=replace(base.walk, beta=1e-7),
    )
    save_settings(str(path), recipe, changed)
    name, command = parsed("--config", str(path))
    assert name == recipe
    assert command.config == changed
    # Equal settings of another type, 8 and 8.0, would train every network again.
    assert fingerprint("all", to_plain(command.config), {}) == fingerprint(
        "all", to_plain(changed), {}
    )


def test_the_command_line_overrides_the_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("recipe: folder\ncrf: {iterations: 3}\ndata: {root: /photos, format: folder}\n")
    name, command = parsed(f"--config={path}", "--crf.iterations", "4", "--data.format", "folder")
    assert name == "folder"
    assert command.config.crf.iterations == 4
    assert command.config.data.root == "/photos"
    assert command.config.encoder == RECIPES["folder"]().encoder
    assert parsed("demo", "--config", str(path))[0] == "demo"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("crf: {iterations: 3}", "names the recipe None, expected one of"),
        ("recipe: nothing", "names the recipe 'nothing'"),
        ("recipe: demo\ncrf: {iteration: 3}", r"crf\.iteration, but 'iteration' is not among form"),
        ("recipe: demo\ncfr: {iterations: 3}", "'cfr' is not among data"),
        ("- a\n- b", "holds list"),
        ("recipe: [smoke]", r"has the recipe \['smoke'\], expected a name"),
        ("recipe: [demo", "is not YAML"),
        ("recipe: demo\nx: !!python/object/apply:os.system [exit]", "is not YAML"),
    ],
)
def test_wrong_files_are_named(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        with_config_file(["--config", str(path)])
    assert str(path) in str(caught.value)


def test_what_is_no_text_file_is_named(tmp_path: Path) -> None:
    latin = tmp_path / "latin.yaml"
    latin.write_bytes("recipe: démo".encode("latin-1"))
    for path in (latin, tmp_path):
        with pytest.raises(ConfigError, match=f"{path} is not a YAML file in UTF-8"):
            with_config_file(["--config", str(path)])


def test_a_missing_file_is_named() -> None:
    with pytest.raises(ConfigError, match=r"/nowhere\.yaml is missing"):
        with_config_file(["--config", "/nowhere.yaml"])
    with pytest.raises(ConfigError, match="has no value"):
        with_config_file(["demo", "--config"])


def test_a_value_of_another_type_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "typed.yaml"
    path.write_text(
        dump_config("demo", RECIPES["demo"]()).replace("iterations: 4", "iterations: x")
    )
    with pytest.raises(SystemExit):
        parsed("--config", str(path))
    assert "iterations" in capsys.readouterr().err
