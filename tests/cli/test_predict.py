"""What the command line of jobs.predict asks for."""

import sys
from pathlib import Path

import pytest
from PIL import Image

from slams_ray.cli import predict as command
from slams_ray.stages import predict
from slams_ray.stages.predict_settings import PredictSettings


@pytest.mark.parametrize(
    ("arguments", "use_cluster"),
    [
        ([], None),
        (["--cluster", "auto"], None),
        (["--cluster", "always"], True),
        (["--cluster", "never"], False),
    ],
)
def test_the_cluster_is_used_as_asked(
    arguments: list[str], use_cluster: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[PredictSettings] = []
    monkeypatch.setattr(predict, "run", lambda model, images, output, how: asked.append(how))
    given = ["--model", "m", "--images", "i", "--output", "o", "--tile-px", "128", *arguments]
    monkeypatch.setattr(sys, "argv", ["predict", *given])
    command.main()
    (how,) = asked
    assert how.use_cluster is use_cluster
    assert how.tile_px == 128


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--images-per-shard", "0"], "images_per_shard is 0, expected >= 1"),
        (["--max-side-px", "0"], "max_side_px is 0, expected >= 32"),
    ],
)
def test_a_number_that_cannot_be_is_refused_with_what_is_expected(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    given = ["--model", "m", "--images", str(tmp_path), "--output", str(tmp_path / "masks")]
    monkeypatch.setattr(sys, "argv", ["predict", *given, *arguments])
    with pytest.raises(SystemExit):
        command.main()
    assert f"ConfigError: {message}" in capsys.readouterr().err


def test_masks_are_not_written_where_ray_removes_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    copied = tmp_path / "runtime_resources" / "working_dir_files" / "_ray_pkg_1"
    copied.mkdir(parents=True)
    monkeypatch.chdir(copied)
    given = ["predict", "--model", "m", "--images", "i", "--output", "masks"]
    monkeypatch.setattr(sys, "argv", given)
    with pytest.raises(SystemExit, match="1"):
        command.main()
    assert "--output is masks, which is in the copy of the code that Ray makes" in (
        capsys.readouterr().err
    )
    assert not list(copied.iterdir())
